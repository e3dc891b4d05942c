"""What is done with a removal set: retrain, NPO, random control."""
