"""Pure maths on tensors and arrays: no modules, no files, no global state. Whatever has a formula lives here."""
