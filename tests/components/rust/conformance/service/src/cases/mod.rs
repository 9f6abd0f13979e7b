//! The tests, a file each. Those that are clients ask another server when they are asked for anything, and answer with 200
//! if that went well.
use wasip3::http::types::{Request, Response};

use crate::messages::answer;

macro_rules! cases {
    (servers { $($server:ident)* } clients { $($client:ident)* }) => {
        $(mod $server;)*
        $(mod $client;)*

        pub async fn handle(name: &str, request: Request) -> Response {
            match name {
                $(stringify!($server) => return $server::handle(request).await,)*
                $(stringify!($client) => $client::run().await,)*
                _ => panic!("there is no test {name}"),
            }
            answer(200, &[], None)
        }
    };
}

cases! {
    servers {
        http_service
        http_service_echo
        http_service_uri
    }
    clients {
        http_client
        http_client_chunked
        http_client_headers
        http_client_method
        http_client_path
        http_client_path_none
        http_client_send_errors
        http_client_sent
        http_client_status
        http_client_trailer_error
        http_client_trailers
    }
}
