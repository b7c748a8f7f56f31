//! Fakes with failure points, store conformance and fixtures: for tests only.

pub mod crash;
pub mod minutes;
pub mod store_conformance;
pub mod store_folder;
