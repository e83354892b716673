"""howsparse inside of other libraries: Hugging Face and Lightning."""
