//! Showing hostile text to people.
