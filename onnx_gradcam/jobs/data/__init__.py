"""Labelled photos: folders, globs, tables and COCO annotations, all as samples."""
