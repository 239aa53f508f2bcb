"""The papers' experiments: which networks are trained, what is measured on them; notebooks only ask for it."""
