"""The words of a recipe: allocation, schedule, structure; and scores to masks."""
