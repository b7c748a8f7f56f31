//! What a request of 2026-07-28 says about itself.

use toolgate_broker::port::Client;
use toolgate_core::json::{Document, ObjectWriter, Value, quote};

use super::fault::Fault;
use crate::line::Level;
use crate::rpc;
use crate::version::Version;

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

const META_INFO: &str = "io.modelcontextprotocol/clientInfo";

const META_LEVEL: &str = "io.modelcontextprotocol/logLevel";

/// What a request of the modern era says about itself.
#[derive(Debug)]
pub struct Meta {
    /// The revision.
    pub version: Version,
    /// The client.
    pub client: Client,
    /// The log messages it wants.
    pub log: Option<Level>,
}

/// The revision that a request says it is in, by its `_meta`; `None` for requests of the legacy era.
#[must_use]
pub fn claimed_version(params: Option<&Document>) -> Option<Value<'_>> {
    params?.root().path(&["_meta", META_VERSION])
}

/// Reads what a request of the modern era has to say about itself.
///
/// # Errors
/// Something is missing or cannot be read, or the revision is not spoken here.
pub fn meta(params: Option<&Document>) -> Result<Meta, Fault> {
    let meta = params.and_then(|params| params.root().get("_meta")).filter(|meta| meta.is_object());
    let Some(meta) = meta else {
        return Err(Fault::meta(format!(
            "`params._meta` has to have `{META_VERSION}` and `{META_CAPABILITIES}`"
        )));
    };
    let Some(requested) = meta.get(META_VERSION).and_then(|version| version.as_str()) else {
        return Err(Fault::meta(format!("`params._meta` has to have `{META_VERSION}`, a string")));
    };
    let Some(version) = Version::parse(requested).filter(|version| version.is_modern()) else {
        let supported = format!("[{}]", quote(Version::V2026_07_28.as_str()));
        let data = ObjectWriter::new()
            .raw("supported", supported.as_bytes())
            .string("requested", requested)
            .finish();
        return Err(Fault::new(rpc::UNSUPPORTED_VERSION, "Unsupported protocol version").with(data));
    };
    let Some(capabilities) = meta.get(META_CAPABILITIES).filter(|value| value.is_object()) else {
        return Err(Fault::meta(format!("`params._meta` has to have `{META_CAPABILITIES}`, an object")));
    };
    let info = meta.get(META_INFO);
    if info.is_some_and(|info| !info.is_object()) {
        return Err(Fault::meta(format!("`{META_INFO}` in `params._meta` has to be an object")));
    }
    let log = match meta.get(META_LEVEL) {
        None => None,
        Some(level) => {
            Some(level.as_str().and_then(Level::parse).ok_or_else(|| Fault::params("unknown log level"))?)
        }
    };
    let client = Client {
        version: version.as_str().to_owned(),
        capabilities: Some(capabilities.to_document()),
        info: info.map(|info| info.to_document()),
    };
    Ok(Meta { version, client, log })
}
