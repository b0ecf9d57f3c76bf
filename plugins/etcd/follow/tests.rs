//! The arithmetic of following; conversations and etcd's own servers have the rest.

use super::*;

#[test]
fn a_look_back_ends_where_the_history_or_the_list_does() {
    // Compacted from 500 on, the list being at 999.
    assert_eq!(not_so_far(1, 1000, 500), 500);
    // Not said: only what comes behind the list.
    assert_eq!(not_so_far(1, 1000, 0), 1000);
    // Compacted behind the list: the watch will say so.
    assert_eq!(not_so_far(1, 1000, 2000), 1000);
    assert_eq!(not_so_far(500, 1000, 500), 1000);
}

#[test]
fn waits_double_up_to_their_end() {
    assert!(retry_after(1) <= RETRY_MIN);
    assert!(retry_after(3) <= RETRY_MIN * 4 && retry_after(3) >= RETRY_MIN * 3);
    assert!(retry_after(100) <= RETRY_MAX && retry_after(u32::MAX) >= RETRY_MAX / 2);
}
