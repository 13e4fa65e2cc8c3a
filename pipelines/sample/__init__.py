"""What pretexts cut out of an example: patches, tiles, clips, and frames with their sound."""
