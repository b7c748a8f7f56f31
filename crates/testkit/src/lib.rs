//! Fakes with failure points, store conformance and fixtures: for tests only.

pub mod minutes;
