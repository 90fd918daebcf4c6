"""GGUF files: their tensors and their tokenizer, as of a Hugging Face checkpoint."""

__all__ = []
