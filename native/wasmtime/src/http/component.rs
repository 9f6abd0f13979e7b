//! A component that serves, and how many of its guests may be at work.

use std::sync::Arc;

use http::Response;
use tokio::sync::Semaphore;
use wasmtime::component::InstancePre;
use wasmtime_wasi_http::handler::Request;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use super::body::GuestBody;
use super::newer::{Instances, Newer};
use super::older::Older;
use super::{NoAnswer, Settings};
use crate::abi::Kind;
use crate::clock::Clock;
use crate::host::{Host, World};

pub struct Component {
    guests: Guests,
    permits: Arc<Semaphore>,
    concurrency: u32,
}

enum Guests {
    Older(Arc<Older>),
    Newer(Box<Newer>),
}

impl Component {
    /// :param clock: of its engine
    pub fn new(
        kind: Kind,
        pre: InstancePre<Host>,
        world: World,
        settings: &Settings,
        clock: Arc<Clock>,
    ) -> wasmtime::Result<Self> {
        let (timeout, idle) = (settings.timeout, settings.idle);
        let guests = if kind == Kind::Server2 {
            Guests::Older(Arc::new(Older { pre: ProxyPre::new(pre)?, world, timeout, idle, clock }))
        } else {
            let instances = Instances::new(ServicePre::new(pre)?, world, timeout, settings.reuse, clock);
            Guests::Newer(Box::new(Newer::new(instances, idle)))
        };
        let permits = Arc::new(Semaphore::new(settings.concurrency));
        Ok(Self { guests, permits, concurrency: settings.concurrency as u32 })
    }

    pub async fn answer(&self, request: Request) -> Result<Response<GuestBody>, NoAnswer> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| NoAnswer::Failed)?;
        match &self.guests {
            Guests::Older(guests) => guests.answer(request, permit).await,
            Guests::Newer(guests) => guests.answer(request, permit).await,
        }
    }

    /// Wait until none is at work.
    pub async fn finished(&self) {
        let _ = self.permits.acquire_many(self.concurrency).await;
        if let Guests::Newer(guests) = &self.guests {
            guests.ended().await; // what they do after their answers
        }
    }
}
