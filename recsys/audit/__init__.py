"""Care for what nights leave: forgetting with a proof, and whether tables, bundles, pointers and exports fit."""
