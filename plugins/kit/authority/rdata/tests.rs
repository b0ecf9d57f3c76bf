//! Data from text and back.
