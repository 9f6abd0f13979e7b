//! Requests that name no host are to the application itself: they are given a name that only it answers to.

use http::Uri;
use http::uri::Authority;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler::Host as _;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Host as _, Scheme};
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostOutgoingRequest};
use wasmtime_wasi_http::p3::bindings::http::client::HostWithStore;
use wasmtime_wasi_http::p3::bindings::http::types as newer;
use wasmtime_wasi_http::{Error, RequestOptions, WasiHttp, WasiHttpView, p3};

use super::asks::NO_AUTHORITY;
use crate::host::Host;

/// As the crate has them.
const OLDER: &str = "wasi:http/outgoing-handler@0.2.12";
const NEWER: &str = "wasi:http/client@0.3.0";

type Handled = Result<Resource<HostFutureIncomingResponse>, ErrorCode>;

/// In place of the crate's.
pub fn link(linker: &mut Linker<Host>, is_newer: bool) -> wasmtime::Result<()> {
    linker.instance(OLDER)?.func_wrap(
        "handle",
        |mut store, (request, options): (Resource<HostOutgoingRequest>, Option<Resource<RequestOptions>>)| {
            let host = store.data_mut();
            let asked = host.table().get_mut(&request)?;
            asked.authority.get_or_insert_with(|| NO_AUTHORITY.into());
            // At once, before its body is written: a guest that has begun to is told of that end only.
            if let Some(error) = target(asked).and_then(|target| host.refuses(&target)) {
                host.table().delete(request)?;
                options.map(|it| host.table().delete(it)).transpose()?;
                return Ok((Err(code(error)),));
            }
            let mut view = host.http();
            let handled: Handled = match view.handle(request, options) {
                Ok(future) => Ok(future),
                Err(error) => Err(view.convert_error_code(error)?),
            };
            Ok((handled,))
        },
    )?;
    if !is_newer {
        return Ok(());
    }
    linker.instance(NEWER)?.func_wrap_concurrent("send", |accessor, (request,): (Resource<p3::Request>,)| {
        Box::pin(async move {
            accessor.with(|mut it| -> wasmtime::Result<()> {
                let request = it.get().http().table.get_mut(&request)?;
                request.authority.get_or_insert(Authority::from_static(NO_AUTHORITY));
                Ok(())
            })?;
            let http = accessor.with_getter::<WasiHttp>(Host::http);
            let sent: Result<Resource<p3::Response>, newer::ErrorCode> = match WasiHttp::send(&http, request).await {
                Ok(response) => Ok(response),
                Err(error) => Err(error.downcast()?),
            };
            Ok((sent,))
        })
    })
}

/// Where a request goes; ``None``: it is wrong.
fn target(request: &HostOutgoingRequest) -> Option<Uri> {
    let scheme = match &request.scheme {
        Some(Scheme::Http) => "http",
        Some(Scheme::Https) | None => "https",
        Some(Scheme::Other(_)) => return None,
    };
    Uri::builder().scheme(scheme).authority(request.authority.as_deref()?).path_and_query("/").build().ok()
}

/// Of those that say so without a look at the network.
fn code(error: Error) -> ErrorCode {
    match error {
        Error::HttpRequestUriInvalid => ErrorCode::HttpRequestUriInvalid,
        Error::DestinationNotFound => ErrorCode::DestinationNotFound,
        Error::DestinationIpProhibited => ErrorCode::DestinationIpProhibited,
        _ => ErrorCode::HttpRequestDenied,
    }
}
