"""What one would take instead of Postroom, each as its own documentation says that it runs best."""
