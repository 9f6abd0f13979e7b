//! An application as Python describes it, and as it serves: routes to components, each with guests of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Response, StatusCode};
use serde::Deserialize;
use wasmtime_wasi_http::handler::Request;

use super::fixed::plain;
use super::routes::{Found, Match, Routes, Target};
use super::telemetry::{self, Teller};
use crate::http::{Component, GuestBody, NoAnswer};

const HEALTH: &str = "/.well-known/spin/health";
const INFO: &str = "/.well-known/spin/info";

pub struct Application {
    /// JSON, of its name and version.
    pub about: String,
    pub routes: Routes,
    /// By their names.
    pub components: Vec<(String, Component)>,
    /// Who is told of all this, if anybody is.
    pub teller: Option<Arc<Teller>>,
}

type Answer = Result<Response<GuestBody>, NoAnswer>;

impl Application {
    pub async fn answer(&self, mut request: Request, peer: SocketAddr) -> Answer {
        let Some(teller) = &self.teller else { return self.routed(request, &peer.to_string()).await };
        let path = request.uri().path();
        let is_own = path == HEALTH || path == INFO;
        let route = if is_own { path } else { self.routes.name(path).unwrap_or_default() };
        let span = teller.request(&request, peer, route);
        telemetry::belongs(&mut request, span.clone());
        let answer = self.routed(request, &peer.to_string()).await;
        telemetry::answered(&span, answer.as_ref().map_or_else(|why| why.status(), Response::status));
        answer.map(|response| response.map(|body| body.keeping(Box::new(span))))
    }

    /// :param client: its address
    pub async fn routed(&self, request: Request, client: &str) -> Answer {
        match request.uri().path() {
            HEALTH => Ok(plain(StatusCode::OK, "OK", "text/plain")),
            INFO => Ok(plain(StatusCode::OK, &self.about, "application/json")),
            path => match self.routes.find(path) {
                Some(Found::Component(found)) => self.told(found, request, client).await,
                Some(Found::Fixed(fixed)) => Ok(fixed.answer()),
                None => Ok(plain(StatusCode::NOT_FOUND, "", "text/plain")),
            },
        }
    }

    /// Have a component answer, whatever the path.
    pub async fn called(&self, component: usize, request: Request, client: &str) -> Answer {
        let found = Match::all(component, request.uri().path());
        self.told(found, request, client).await
    }

    async fn told(&self, found: Match<'_>, mut request: Request, client: &str) -> Answer {
        let component = found.component;
        let uri = request.uri().clone();
        found.tell(request.headers_mut(), &uri, client);
        let (id, component) = &self.components[component];
        if let Some(teller) = &self.teller {
            teller.component(id, &mut request);
        }
        component.answer(request).await
    }

    /// The component of that name; ``None``: there is none that answers requests.
    pub fn answering(&self, name: &str) -> Option<usize> {
        self.components.iter().position(|(own, _)| own == name)
    }

    /// Wait until no guest is at work.
    pub async fn finished(&self) {
        for (_, component) in &self.components {
            component.finished().await;
        }
    }

    /// Nothing more is to be told.
    pub async fn end(&self) {
        if let Some(teller) = &self.teller {
            teller.end().await;
        }
    }
}

/// What ``shimd/apps/spin/native.py`` makes of a manifest.
#[derive(Deserialize)]
pub struct Description {
    pub name: String,
    pub version: String,
    /// Whether to tell the address, for somebody who sits before it.
    pub announced: bool,
    /// The most of an instance, bytes.
    pub memory: Option<usize>,
    /// Of the container: where its certificates are.
    pub env: Vec<(String, String)>,
    pub components: Vec<Described>,
    /// What the files of components are below, if they have no directories.
    pub root: String,
    pub routes: Vec<(String, Target)>,
    pub files: Vec<File>,
    pub network: Network,
    /// The descriptor that connections to the process of servers' interfaces are asked for over, if there is one.
    pub ask: Option<i32>,
    /// What is told of it, if anything is.
    pub telemetry: Option<telemetry::Described>,
}

#[derive(Deserialize)]
pub struct Described {
    pub id: String,
    /// The directory that its compiled form is in, a descriptor.
    pub cache: i32,
    /// Relative to that.
    pub artifact: String,
    /// As in a block.
    pub kind: u64,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub variables: Vec<(String, String)>,
    pub allowed: Vec<super::allowed::AllowedHost>,
    /// Interfaces that are given over the bridge.
    pub bridged: Vec<String>,
    /// By their labels the indices of files; ``None``: there is no such one.
    pub stores: Vec<(String, Option<usize>)>,
    pub databases: Vec<(String, Option<usize>)>,
    /// That it is granted.
    pub models: Vec<String>,
    /// A descriptor of its directory of files; else what there is of the container's.
    pub directory: Option<i32>,
    pub mounts: Vec<Mount>,
    pub excluded: Vec<String>,
    /// The manifest and the field that describe it, for messages.
    pub manifest: String,
    /// Of its own TLS configurations the indices, by hosts.
    pub tls: Vec<(String, usize)>,
}

/// Files that a component sees: those that a pattern finds, or one directory, or file, at a place of its own.
#[derive(Deserialize)]
pub struct Mount {
    pub source: String,
    pub destination: Option<String>,
}

/// A file of SQLite's.
#[derive(Deserialize)]
pub struct File {
    pub path: String,
    /// Whether it has the table of key-value stores.
    pub stores: bool,
    pub attaches: bool,
}

#[derive(Deserialize)]
pub struct Network {
    /// ``ADDRESS/BITS``.
    pub blocked: Vec<String>,
    pub private: bool,
    pub keeps: bool,
    /// Requests under way at a time.
    pub most: Option<usize>,
    pub tls: Vec<Tls>,
}

#[derive(Deserialize)]
pub struct Tls {
    pub roots: String,
    pub platform: bool,
    pub webpki: bool,
    pub certificate: String,
    pub key: String,
}
