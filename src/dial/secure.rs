//! Connections with TLS, for `https` and `unixs` URLs.

#[cfg(feature = "tls")]
use rustls::ClientConfig;
use std::fmt;
#[cfg(feature = "tls")]
use std::{io, sync::Arc};
use ureq::unversioned::transport::{ConnectionDetails, Connector, Transport};

#[cfg(feature = "tls")]
pub use self::with_tls::{Configs, HandshakeError, error_of};

/// How connections to `https` and `unixs` URLs are encrypted.
#[derive(Clone, Default)]
pub struct Tls {
    #[cfg(feature = "tls")]
    configs: Option<Configs>,
}

impl Tls {
    /// Connections to `https` and `unixs` URLs fail.
    pub fn none() -> Tls {
        Tls::default()
    }

    /// Whether connections to `https` URLs are possible.
    pub fn is_possible(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.configs.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// Asks for a configuration for each new connection.
    #[cfg(feature = "tls")]
    pub fn new(configs: Configs) -> Tls {
        Tls {
            configs: Some(configs),
        }
    }

    /// The configuration of a new connection.
    ///
    /// # Errors
    /// Such connections fail, or the files of the configuration cannot be used.
    #[cfg(feature = "tls")]
    pub fn config(&self) -> io::Result<Arc<ClientConfig>> {
        match &self.configs {
            Some(configs) => configs(),
            None => Err(io::Error::other(
                "this process has no certificates for TLS: see the flags for TLS in --help",
            )),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// Without the feature there is no other connection than the one below.
#[cfg(not(feature = "tls"))]
impl Connector<Box<dyn Transport>> for Tls {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<Box<dyn Transport>>,
    ) -> Result<Option<Box<dyn Transport>>, ureq::Error> {
        match details.needs_tls() {
            true => Err(ureq::Error::TlsRequired),
            false => Ok(chained),
        }
    }
}

#[cfg(feature = "tls")]
mod with_tls {
    use super::{ConnectionDetails, Connector, Tls, Transport};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, StreamOwned};
    use std::io::{self, Read as _, Write as _};
    use std::sync::Arc;
    use std::{error, fmt};
    use ureq::unversioned::transport::{
        Buffers, Either, LazyBuffers, NextTimeout, TransportAdapter,
    };

    /// Returns the configuration of a new connection.
    pub type Configs = Arc<dyn Fn() -> io::Result<Arc<ClientConfig>> + Send + Sync>;

    /// The handshake failed: no byte of the request was sent.
    #[derive(Debug)]
    pub struct HandshakeError(pub io::Error);

    impl fmt::Display for HandshakeError {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "TLS handshake: {}", self.0)
        }
    }

    impl error::Error for HandshakeError {}

    /// The error of TLS in an error of the operating system or of a connection.
    pub fn error_of(error: &io::Error) -> Option<&rustls::Error> {
        error.get_ref()?.downcast_ref()
    }

    impl<In: Transport> Connector<In> for Tls {
        type Out = Either<In, Secure>;

        fn connect(
            &self,
            details: &ConnectionDetails,
            chained: Option<In>,
        ) -> Result<Option<Either<In, Secure>>, ureq::Error> {
            let Some(transport) = chained else {
                return Ok(None);
            };
            if !details.needs_tls() {
                return Ok(Some(Either::A(transport)));
            }
            let config = self.config().map_err(failed)?;
            let connection = ClientConnection::new(config, name_of(details)?)
                .map_err(|error| failed(io::Error::other(error)))?;
            let below = TransportAdapter::new(transport.boxed(), details.current_time.clone());
            let mut stream = StreamOwned::new(connection, below);
            stream.sock.set_timeout(details.timeout);
            stream
                .conn
                .complete_io(&mut stream.sock)
                .map_err(handshake_error)?;
            let config = details.config;
            let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
            Ok(Some(Either::B(Secure { buffers, stream })))
        }
    }

    fn failed(error: io::Error) -> ureq::Error {
        ureq::Error::Other(Box::new(HandshakeError(error)))
    }

    /// A timeout stays one.
    fn handshake_error(error: io::Error) -> ureq::Error {
        match ureq::Error::from(error) {
            ureq::Error::Io(error) => failed(error),
            other => other,
        }
    }

    /// The name that the server's certificate must be for.
    fn name_of(details: &ConnectionDetails) -> Result<ServerName<'static>, ureq::Error> {
        let host = details.uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned());
        name.map_err(|_| ureq::Error::BadUri(format!("{host} cannot be the name of a TLS server")))
    }

    /// A connection with TLS.
    pub struct Secure {
        buffers: LazyBuffers,
        stream: StreamOwned<ClientConnection, TransportAdapter>,
    }

    impl fmt::Debug for Secure {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Secure")
        }
    }

    impl Transport for Secure {
        fn buffers(&mut self) -> &mut dyn Buffers {
            &mut self.buffers
        }

        fn transmit_output(
            &mut self,
            amount: usize,
            timeout: NextTimeout,
        ) -> Result<(), ureq::Error> {
            self.stream.sock.set_timeout(timeout);
            let output = &self.buffers.output()[..amount];
            self.stream.write_all(output)?;
            Ok(())
        }

        fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
            self.stream.sock.set_timeout(timeout);
            let read = self.stream.read(self.buffers.input_append_buf())?;
            self.buffers.input_appended(read);
            Ok(read > 0)
        }

        fn is_open(&mut self) -> bool {
            self.stream.sock.get_mut().is_open()
        }

        fn is_tls(&self) -> bool {
            true
        }
    }
}
