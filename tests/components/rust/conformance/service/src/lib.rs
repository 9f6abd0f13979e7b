//! The tests that serve HTTP, in one component: which of them it is, it knows by the name of its program.
mod cases;
mod messages;

use wasip3::cli::environment::get_arguments;
use wasip3::http::types::{ErrorCode, Request, Response};

wasip3::http::service::export!(Service);

struct Service;

impl wasip3::exports::http::handler::Guest for Service {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let program = get_arguments().swap_remove(0);
        Ok(cases::handle(&checks::case(&program), request).await)
    }
}
