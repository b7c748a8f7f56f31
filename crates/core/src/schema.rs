//! Schemas of tools: what their arguments and results have to look like.
