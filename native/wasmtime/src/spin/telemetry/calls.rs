//! Functions whose calls are told: each has a span, and an error that it returns is that span's.

use std::ops::{Deref, DerefMut};
use std::pin::Pin;

use opentelemetry::trace::{SpanKind, Status, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use wasmtime::component::{Accessor, ComponentNamedList, Lift, LinkerInstance, Lower, Val};
use wasmtime::{Result, StoreContextMut};

use super::Watch;
use super::names::Called;
use crate::host::Host;

/// An error of an interface: the name of its case, and its words if it has some.
pub trait Case {
    fn case(&self) -> (&'static str, Option<&str>);
}

/// What a function returns.
pub trait Outcome {
    fn failure(&self) -> Option<(&'static str, Option<&str>)>;
}

impl<T, E: Case> Outcome for (std::result::Result<T, E>,) {
    fn failure(&self) -> Option<(&'static str, Option<&str>)> {
        self.0.as_ref().err().map(Case::case)
    }
}

/// Of a function that cannot fail, or not yet.
macro_rules! never_fails {
    ($($kind:ty),*) => {
        $(impl Outcome for ($kind,) {
            fn failure(&self) -> Option<(&'static str, Option<&str>)> {
                None
            }
        })*
    };
}
never_fails!(i64, u64);

impl<T, E> Outcome for ((wasmtime::component::StreamReader<T>, wasmtime::component::FutureReader<E>),) {
    fn failure(&self) -> Option<(&'static str, Option<&str>)> {
        None
    }
}

/// Bytes of an error, and of a name, that are told: a span waits for others, and a guest may write what it likes.
const MOST: usize = 1000;
const LONGEST_NAME: usize = 100;

fn short(mut text: String, most: usize) -> String {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    text.truncate(end);
    text
}

/// The span of a call, until it is done.
pub struct Call(Context);

impl Watch {
    /// :param parameters: where they are known
    pub fn call(&self, called: &Called, parameters: &[Val]) -> Call {
        let kind = if called.produces { SpanKind::Producer } else { SpanKind::Client };
        let told = called.attributes(parameters);
        let name = short(called.name(parameters), LONGEST_NAME);
        Call(self.teller.span(name, kind, told, &self.context))
    }
}

impl Call {
    fn failed(&self, case: &str, words: Option<&str>) {
        let span = self.0.span();
        span.set_attribute(KeyValue::new("error.type", case.to_string()));
        let text = words.map_or_else(|| case.to_string(), |words| format!("{case}: {words}"));
        span.set_status(Status::error(short(text, MOST)));
    }

    fn done<R: Outcome>(self, done: &Result<R>) {
        match done {
            Ok(returned) => {
                if let Some((case, words)) = returned.failure() {
                    self.failed(case, words);
                }
            }
            Err(error) => self.failed("trap", Some(&format!("{error:#}"))),
        }
    }

    /// Of a function that is known by its types alone.
    pub fn returned(&self, done: &Result<()>, results: &[Val]) {
        if let Err(error) = done {
            self.failed("trap", Some(&format!("{error:#}")));
        } else if let Some(Val::Result(Err(Some(error)))) = results.first() {
            match &**error {
                Val::Variant(case, Some(words)) => match &**words {
                    Val::String(words) => self.failed(case, Some(words)),
                    _ => self.failed(case, None),
                },
                Val::Variant(case, None) | Val::Enum(case) => self.failed(case, None),
                _ => self.failed("error", None),
            }
        }
    }
}

/// Where interfaces are linked whose calls are told.
pub trait Calls {
    fn watched(&mut self, name: &str) -> Result<WatchedInterface<'_>>;
}

impl Calls for wasmtime::component::Linker<Host> {
    fn watched(&mut self, name: &str) -> Result<WatchedInterface<'_>> {
        Ok(WatchedInterface { instance: self.instance(name)?, name: name.to_string() })
    }
}

/// An interface of which each call is told, if its guest is watched.
pub struct WatchedInterface<'a> {
    instance: LinkerInstance<'a, Host>,
    name: String,
}

impl<'a> Deref for WatchedInterface<'a> {
    type Target = LinkerInstance<'a, Host>;

    fn deref(&self) -> &Self::Target {
        &self.instance
    }
}

impl DerefMut for WatchedInterface<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.instance
    }
}

/// The call of a guest that is watched; ``None``: it is not.
fn begun(host: &Host, called: Option<&Called>) -> Option<Call> {
    Some(host.watch.as_ref()?.call(called?, &[]))
}

fn ended<R: Outcome>(call: Option<Call>, done: Result<R>) -> Result<R> {
    if let Some(call) = call {
        call.done(&done);
    }
    done
}

impl WatchedInterface<'_> {
    pub fn func_wrap<P, R>(
        &mut self,
        name: &str,
        function: impl Fn(StoreContextMut<'_, Host>, P) -> Result<R> + Send + Sync + 'static,
    ) -> Result<()>
    where
        P: ComponentNamedList + Lift + 'static,
        R: ComponentNamedList + Lower + Outcome + 'static,
    {
        let called = Called::of(&self.name, name);
        self.instance.func_wrap(name, move |store: StoreContextMut<'_, Host>, parameters: P| {
            let call = begun(store.data(), called.as_ref());
            ended(call, function(store, parameters))
        })
    }

    pub fn func_wrap_async<P, R>(
        &mut self,
        name: &str,
        function: impl for<'s> Fn(StoreContextMut<'s, Host>, P) -> Box<dyn Future<Output = Result<R>> + Send + 's>
        + Send
        + Sync
        + 'static,
    ) -> Result<()>
    where
        P: ComponentNamedList + Lift + 'static,
        R: ComponentNamedList + Lower + Outcome + Send + 'static,
    {
        let called = Called::of(&self.name, name);
        self.instance.func_wrap_async(name, move |store: StoreContextMut<'_, Host>, parameters: P| {
            let call = begun(store.data(), called.as_ref());
            let doing = Box::into_pin(function(store, parameters));
            Box::new(async move { ended(call, doing.await) })
        })
    }

    pub fn func_wrap_concurrent<P, R>(
        &mut self,
        name: &str,
        function: impl Fn(&Accessor<Host>, P) -> Pin<Box<dyn Future<Output = Result<R>> + Send + '_>>
        + Send
        + Sync
        + 'static,
    ) -> Result<()>
    where
        P: ComponentNamedList + Lift + 'static,
        R: ComponentNamedList + Lower + Outcome + Send + 'static,
    {
        let called = Called::of(&self.name, name);
        self.instance.func_wrap_concurrent(name, move |accessor: &Accessor<Host>, parameters: P| {
            let call = accessor.with(|mut it| begun(it.get(), called.as_ref()));
            let doing = function(accessor, parameters);
            Box::pin(async move { ended(call, doing.await) })
        })
    }
}
