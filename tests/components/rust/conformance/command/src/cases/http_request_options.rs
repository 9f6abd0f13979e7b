//! Options of a request have no times at first, and keep those that they are given; a copy has its own. Those of
//! a request that was made do not change.
use checks::{gives, ok, same, some};
use wasip3::http::types::{Fields, Request, RequestOptions, RequestOptionsError};

use crate::messages::no_trailers;

fn times(options: &RequestOptions) -> [Option<u64>; 3] {
    [options.get_connect_timeout(), options.get_first_byte_timeout(), options.get_between_bytes_timeout()]
}

pub async fn run() {
    let options = RequestOptions::new();
    same!(times(&options), [None::<u64>; 3]);
    ok!(options.set_connect_timeout(Some(1_000_000)));
    same!(times(&options), [Some(1_000_000), None, None]);
    ok!(options.set_first_byte_timeout(Some(2_000_000)));
    ok!(options.set_between_bytes_timeout(Some(3_000_000)));
    same!(times(&options), [Some(1_000_000), Some(2_000_000), Some(3_000_000)]);
    ok!(options.set_connect_timeout(None));
    same!(times(&options), [None, Some(2_000_000), Some(3_000_000)]);

    let copy = options.clone();
    same!(times(&copy), times(&options));
    ok!(copy.set_connect_timeout(Some(4_000_000)));
    same!((copy.get_connect_timeout(), options.get_connect_timeout()), (Some(4_000_000), None::<u64>));

    let (request, _sent) = Request::new(Fields::new(), None, no_trailers(), Some(copy));
    let frozen = some!(request.get_options());
    same!(times(&frozen), [Some(4_000_000), Some(2_000_000), Some(3_000_000)]);
    gives!(frozen.set_connect_timeout(Some(1)), Err(RequestOptionsError::Immutable));
    gives!(frozen.set_first_byte_timeout(Some(1)), Err(RequestOptionsError::Immutable));
    gives!(frozen.set_between_bytes_timeout(Some(1)), Err(RequestOptionsError::Immutable));

    let (request, _sent) = Request::new(Fields::new(), None, no_trailers(), None);
    gives!(request.get_options(), None);
}
