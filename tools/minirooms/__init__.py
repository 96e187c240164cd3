"""The MiniRooms generator: rooms with exact depth, labels, cameras and people, rendered from a seed."""
