"""Made-up patients, and the recipes of the models that ship."""
