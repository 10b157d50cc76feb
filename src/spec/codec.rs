//! What a child's requests and replies are as text, captured where their types are known.

use std::any::{Any, TypeId, type_name};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::behavior::Behavior;
use crate::id::RequestId;
use crate::port::{AcceptOptions, AnyReply, NotUndone, Port, Reading};
use crate::text;

type AnyPort = Arc<dyn Any + Send + Sync>;
type AnyRequest = Box<dyn Any + Send + Sync>;
type Waiting = std::pin::Pin<Box<dyn Future<Output = Result<(), NotUndone>> + Send>>;

/// See the [module](self).
#[derive(Clone, Copy)]
pub(crate) struct Codec {
    /// The [`Port`] these are the types of.
    pub(crate) port: TypeId,
    pub(crate) port_name: &'static str,
    pub(crate) write_request: fn(&dyn Any) -> Result<Vec<u8>, String>,
    pub(crate) write_reply: fn(&dyn Any) -> Result<Vec<u8>, String>,
    /// A reply, for whoever asks the same again.
    pub(crate) read_reply: fn(&[u8]) -> Result<AnyReply, String>,
    /// A request, to be handled again.
    pub(crate) read_request: fn(&[u8]) -> Result<AnyRequest, String>,
    /// Asks what stands behind a port, and waits for the fate.
    pub(crate) call: fn(&AnyPort, &[u8], AcceptOptions) -> Result<Waiting, String>,
    /// Hands a request over that was accepted before.
    pub(crate) post: fn(&AnyPort, &[u8], AcceptOptions) -> Result<RequestId, String>,
}

impl Codec {
    pub(crate) fn of<B: Behavior>() -> Self
    where
        B::Request: Serialize + DeserializeOwned,
        B::Reply: Serialize + DeserializeOwned,
    {
        Self {
            port: TypeId::of::<Port<B::Request, B::Reply>>(),
            port_name: type_name::<Port<B::Request, B::Reply>>(),
            write_request: |value| match value.downcast_ref::<B::Request>() {
                Some(value) => text::storable(value),
                None => Err(format!("it is not {}", type_name::<B::Request>())),
            },
            write_reply: |value| match value.downcast_ref::<B::Reply>() {
                Some(value) => text::storable(value),
                None => Err(format!("it is not {}", type_name::<B::Reply>())),
            },
            read_reply: |bytes| {
                text::read::<B::Reply>(bytes).map(|reply| Box::new(reply) as AnyReply)
            },
            read_request: |bytes| {
                text::read::<B::Request>(bytes).map(|it| Box::new(it) as AnyRequest)
            },
            call: |port, bytes, options| {
                let (port, request) = read::<B>(port, bytes)?;
                Ok(Box::pin(async move {
                    port.exchange(request, options).await.map(drop).map_err(NotUndone::from)
                }))
            },
            post: |port, bytes, options| {
                let (port, request) = read::<B>(port, bytes)?;
                port.post(request, options).map_err(|error| error.to_string())
            },
        }
    }
}

impl Codec {
    /// What of it whoever asks needs.
    pub(crate) const fn reading(&self) -> Reading {
        Reading { write_request: self.write_request, read_reply: self.read_reply }
    }
}

type Typed<B> = (Port<<B as Behavior>::Request, <B as Behavior>::Reply>, <B as Behavior>::Request);

fn read<B: Behavior>(port: &AnyPort, bytes: &[u8]) -> Result<Typed<B>, String>
where
    B::Request: DeserializeOwned,
{
    let port = port
        .downcast_ref::<Port<B::Request, B::Reply>>()
        .ok_or_else(|| format!("it does not take {}", type_name::<B::Request>()))?;
    Ok((port.clone(), text::read(bytes)?))
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Codec").field(&self.port_name).finish()
    }
}
