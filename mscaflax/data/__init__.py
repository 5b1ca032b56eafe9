"""Data: scenes, photo folders, TFDS datasets, patch pairs, the tf.data pipeline."""
