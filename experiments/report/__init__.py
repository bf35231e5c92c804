"""What reads runs back: tables, figures, TensorBoard."""
