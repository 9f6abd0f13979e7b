//! Routes from paths to components, and to fixed answers: exact, ``:name`` segments, ``/...`` last. The most specific wins:
//! segment by segment, a literal goes before ``:name``, which goes before ``...``. ``shimd/apps/spin/routes.py`` has the same.

use std::cmp::Reverse;

use http::header::{HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Uri};
use serde::Deserialize;

use super::fixed::Fixed;

const WILDCARD: &str = "...";

struct Route {
    path: String,
    segments: Vec<Segment>,
    target: Target,
}

/// What a route leads to.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Target {
    /// By its index.
    Component(usize),
    Fixed(Fixed),
}

/// The less, the more specific. A route's end goes before a wildcard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(String),
    Name(String),
    Wildcard,
}

impl Segment {
    fn rank(&self) -> u8 {
        match self {
            Self::Literal(_) => 2,
            Self::Name(_) => 1,
            Self::Wildcard => 0,
        }
    }
}

/// What is to answer a request.
pub enum Found<'a> {
    Component(Match<'a>),
    Fixed(&'a Fixed),
}

/// The component that a request goes to, and why.
pub struct Match<'a> {
    pub component: usize,
    route: &'a str,
    /// What the wildcard matches, from its slash on.
    path_info: String,
    named: Vec<(String, String)>,
}

impl<'a> Match<'a> {
    /// Of a component that is called by its name, whatever the path.
    pub fn all(component: usize, path: &str) -> Self {
        Match { component, route: "/...", path_info: path.to_string(), named: Vec::new() }
    }

    /// Headers that tell a component by which route it was found, in place of those of a client.
    ///
    /// :param client: its address
    pub fn tell(self, headers: &mut HeaderMap, uri: &Uri, client: &str) {
        let plain = self.route.strip_suffix("/...").unwrap_or(self.route);
        let host = headers.get(HOST).and_then(|it| it.to_str().ok()).unwrap_or("localhost");
        let url = format!("http://{host}{}", uri.path_and_query().map_or("/", |it| it.as_str()));
        let fixed = [
            ("spin-path-info", self.path_info.as_str()),
            ("spin-full-url", &url),
            ("spin-matched-route", self.route),
            ("spin-raw-component-route", self.route),
            ("spin-component-route", if plain.is_empty() { "/" } else { plain }),
            ("spin-base-path", "/"),
            ("spin-client-addr", client),
        ];
        for (name, value) in fixed {
            put(headers, HeaderName::from_static(name), value);
        }
        for (name, value) in self.named {
            if let Ok(name) = HeaderName::try_from(format!("spin-path-match-{name}")) {
                put(headers, name, &value);
            }
        }
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(name, value);
    }
}

/// In the order in which they are looked at: the first that matches is the best.
pub struct Routes(Vec<Route>);

impl Routes {
    /// :param routes: each with what it leads to
    pub fn new(routes: impl Iterator<Item = (String, Target)>) -> Self {
        let mut routes: Vec<Route> = routes.map(|(path, target)| Route::new(path, target)).collect();
        routes.sort_by_cached_key(|route| {
            let ranks = route.segments.iter().map(Segment::rank);
            Reverse(ranks.chain([1]).collect::<Vec<_>>())
        });
        Self(routes)
    }

    pub fn find(&self, path: &str) -> Option<Found<'_>> {
        self.0.iter().find_map(|route| route.matched(path))
    }

    /// The route of a path, as the manifest has it.
    pub fn name(&self, path: &str) -> Option<&str> {
        self.0.iter().find(|route| route.matched(path).is_some()).map(|route| route.path.as_str())
    }
}

impl Route {
    fn new(path: String, target: Target) -> Self {
        let segments = split(&path).map(|it| match it.strip_prefix(':') {
            Some(name) => Segment::Name(name.to_ascii_lowercase()),
            None if it == WILDCARD => Segment::Wildcard,
            None => Segment::Literal(it.to_string()),
        });
        Self { segments: segments.collect(), path, target }
    }

    fn matched(&self, path: &str) -> Option<Found<'_>> {
        let open = self.segments.last() == Some(&Segment::Wildcard);
        let fixed = &self.segments[..self.segments.len() - usize::from(open)];
        let mut given = split(path);
        let mut named = Vec::new();
        for segment in fixed {
            match (segment, given.next()?) {
                (Segment::Name(name), it) => named.push((name.clone(), it.to_string())),
                (Segment::Literal(wanted), it) if wanted == it => {}
                _ => return None,
            }
        }
        let rest: Vec<&str> = given.collect();
        if !rest.is_empty() && !open {
            return None;
        }
        let component = match &self.target {
            Target::Component(component) => *component,
            Target::Fixed(fixed) => return Some(Found::Fixed(fixed)),
        };
        let path_info = match rest.is_empty() {
            false => format!("/{}", rest.join("/")),
            true if open && path.ends_with('/') => "/".to_string(),
            true => String::new(),
        };
        Some(Found::Component(Match { component, route: &self.path, path_info, named }))
    }
}

fn split(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|it| !it.is_empty())
}
