"""What the apps share: model look-up, tables, JSON lists, OpenCV, judges of speech."""
