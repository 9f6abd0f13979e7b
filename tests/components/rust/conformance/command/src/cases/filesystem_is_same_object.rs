//! Two descriptors are of the same object if it is one file under two names, or one directory, and else are not.
use checks::{check, ok};

use crate::files::root;

pub async fn run() {
    let dir = root();
    ok!(dir.link("a.txt", &dir, "again").await);
    let (a, b) = (ok!(dir.to_read("a.txt").await), ok!(dir.to_read("b.txt").await));
    let (again, here) = (ok!(dir.to_read("again").await), ok!(dir.to_read(".").await));
    let groups = [vec![&*dir, &here], vec![&a, &again], vec![&b]];
    for (number, group) in groups.iter().enumerate() {
        for one in group {
            for (other_number, others) in groups.iter().enumerate() {
                for other in others {
                    let same = one.is_same_object(other).await;
                    check!(same == (number == other_number));
                }
            }
        }
    }
}
