"""Other libraries: Hugging Face's transformers and Lightning. They are imported only when they are used."""
