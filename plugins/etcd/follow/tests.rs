//! Following, against the test kit's store.
