//! A descriptor tells its type, and how it was opened: to read, if nothing was asked for; to write alone, if that
//! was; a file that is created, to write in any case.
use checks::{gives, ok, same};
use wasip3::filesystem::types::{Descriptor, DescriptorFlags, DescriptorType, ErrorCode, OpenFlags};

use crate::files::{root, NEW, READ, READ_WRITE};

const NONE: DescriptorFlags = DescriptorFlags::empty();
const WRITE: DescriptorFlags = DescriptorFlags::WRITE;
const AS_IT_IS: OpenFlags = OpenFlags::empty();

macro_rules! is {
    ($descriptor:expr, $flags:expr, $kind:ident) => {
        let it: &Descriptor = &$descriptor;
        same!(ok!(it.get_flags().await), $flags);
        gives!(it.get_type().await, Ok(DescriptorType::$kind));
    };
}

pub async fn run() {
    let dir = root();
    is!(dir, READ | DescriptorFlags::MUTATE_DIRECTORY, Directory);
    is!(ok!(dir.open(".", AS_IT_IS, NONE).await), READ, Directory);
    gives!(dir.open(".", AS_IT_IS, WRITE).await, Ok(_) | Err(ErrorCode::IsDirectory));

    is!(ok!(dir.to_read("a.txt").await), READ, RegularFile);
    for (asked, given) in [(READ_WRITE, READ_WRITE), (NONE, READ_WRITE), (READ, READ_WRITE), (WRITE, WRITE)] {
        is!(ok!(dir.open("new", NEW, asked).await), given, RegularFile);
        ok!(dir.unlink("new").await);
    }

    is!(ok!(dir.open("a.txt", OpenFlags::EXCLUSIVE, NONE).await), READ, RegularFile); // it creates nothing
    is!(ok!(dir.open("a.txt", AS_IT_IS, NONE).await), READ, RegularFile);
    is!(ok!(dir.open("a.txt", AS_IT_IS, WRITE).await), WRITE, RegularFile);
}
