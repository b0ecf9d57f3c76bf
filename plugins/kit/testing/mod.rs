//! The test kit: `ask`, conversations, scripted upstreams.
