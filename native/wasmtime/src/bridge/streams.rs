//! Streams and futures whose items a provider makes: each piece is asked for when the guest reads.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use wasmtime::component::{
    Destination, FutureAny, FutureProducer, FutureReader, Lift, Lower, StreamAny, StreamProducer, StreamReader,
    StreamResult, Type, Val, VecBuffer,
};
use wasmtime::{AsContextMut, Result, StoreContextMut, bail, format_err};

use super::connection::{Failure, Guest};
use super::lower::Item;
use super::told;
use super::values::Reader;

type Asked = Pin<Box<dyn Future<Output = Result<Vec<u8>, Failure>> + Send>>;

/// What is read of an object of the provider's, which is dropped with it.
struct Reading {
    guest: Arc<Guest>,
    object: u32,
    /// Goes on if the guest gives up a read, so that nothing is lost.
    asked: Option<Asked>,
}

impl Reading {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>>> {
        let (guest, object) = (&self.guest, self.object);
        let asked = self.asked.get_or_insert_with(|| {
            let guest = guest.clone();
            Box::pin(async move { guest.connection.read(guest.number, object).await })
        });
        let answer = ready!(asked.as_mut().poll(cx));
        self.asked = None;
        Poll::Ready(answer.map_err(|failure| told(failure, "a stream or a future")))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.asked = None;
        self.guest.connection.forget(self.guest.number, self.object);
    }
}

/// How the items of a piece are handed on: as they are, but for bytes, since what the crate itself has of streams is of those.
trait Part: Lower + Lift + Send + Sync + Sized + 'static {
    fn of<T: Send + 'static>(
        piece: &mut Reader<'_>,
        kind: &Type,
        store: &mut StoreContextMut<'_, T>,
    ) -> Result<Vec<Self>>;
}

impl Part for u8 {
    fn of<T: Send + 'static>(piece: &mut Reader<'_>, _: &Type, _: &mut StoreContextMut<'_, T>) -> Result<Vec<u8>> {
        piece.bytes()
    }
}

impl Part for Item {
    fn of<T: Send + 'static>(
        piece: &mut Reader<'_>,
        kind: &Type,
        store: &mut StoreContextMut<'_, T>,
    ) -> Result<Vec<Item>> {
        Ok(piece.list(kind, store)?.into_iter().map(Item).collect())
    }
}

struct Pieces<P> {
    reading: Reading,
    kind: Type,
    part: std::marker::PhantomData<fn() -> P>,
}

impl<D: Send + 'static, P: Part> StreamProducer<D> for Pieces<P> {
    type Item = P;
    type Buffer = VecBuffer<P>;

    fn poll_produce<'a>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, P, VecBuffer<P>>,
        finish: bool,
    ) -> Poll<Result<StreamResult>> {
        if destination.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed)); // who reads nothing learns nothing
        }
        let this = self.get_mut();
        let answer = match this.reading.poll(cx) {
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            answer => ready!(answer)?,
        };
        let mut piece = Reader { data: &answer, from: &this.reading.guest };
        let parts = P::of(&mut piece, &this.kind, &mut store)
            .map_err(|error| format_err!("an item of a stream is wrong: {error}"))?;
        if parts.is_empty() {
            return Poll::Ready(Ok(StreamResult::Dropped));
        }
        destination.set_buffer(parts.into());
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

struct Later {
    reading: Reading,
    kind: Type,
}

impl<D: Send + 'static> FutureProducer<D> for Later {
    type Item = Item;

    fn poll_produce(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<D>,
        finish: bool,
    ) -> Poll<Result<Option<Item>>> {
        let this = self.get_mut();
        let answer = match this.reading.poll(cx) {
            Poll::Pending if finish => return Poll::Ready(Ok(None)),
            answer => ready!(answer)?,
        };
        let read = Reader { data: &answer, from: &this.reading.guest }.read(&this.kind, &mut store);
        Poll::Ready(match read {
            Ok(value) => Ok(Some(Item(value))),
            Err(error) => Err(format_err!("what a future gives is wrong: {error}")),
        })
    }
}

pub fn stream<T: Send + 'static>(
    kind: Option<Type>,
    from: &Arc<Guest>,
    object: u32,
    store: &mut StoreContextMut<'_, T>,
) -> Result<Val> {
    let reading = Reading { guest: from.clone(), object, asked: None };
    match kind {
        Some(Type::U8) => streaming::<T, u8>(reading, Type::U8, store),
        Some(kind) => streaming::<T, Item>(reading, kind, store),
        None => bail!("it gives a stream of nothing"),
    }
}

fn streaming<T: Send + 'static, P: Part>(
    reading: Reading,
    kind: Type,
    store: &mut StoreContextMut<'_, T>,
) -> Result<Val> {
    let pieces = Pieces::<P> { reading, kind, part: std::marker::PhantomData };
    let reader = StreamReader::new(store.as_context_mut(), pieces)?;
    Ok(Val::Stream(StreamAny::try_from_stream_reader(store.as_context_mut(), reader)?))
}

pub fn future<T: Send + 'static>(
    kind: Option<Type>,
    from: &Arc<Guest>,
    object: u32,
    store: &mut StoreContextMut<'_, T>,
) -> Result<Val> {
    let reading = Reading { guest: from.clone(), object, asked: None };
    let Some(kind) = kind else { bail!("it gives a future of nothing") };
    let reader = FutureReader::new(store.as_context_mut(), Later { reading, kind })?;
    Ok(Val::Future(FutureAny::try_from_future_reader(store.as_context_mut(), reader)?))
}
