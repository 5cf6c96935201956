//! The server: one thread with a runtime of its own, so that the host behind it may block.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use kiln_control::contract::Host;
use tokio::sync::oneshot;

use crate::caller::Peer;
use crate::reach::Reach;
use crate::routes::routes;

/// Why a host's door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody answers there already.
    #[error("another host answers on `{}` already", .0.display())]
    Taken(PathBuf),
    /// The system refused.
    #[error("could not {attempted} `{}`", path.display())]
    Io {
        /// What was attempted.
        attempted: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

/// A host's open door. Dropping it closes it.
#[derive(Debug)]
pub struct Server {
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `socket`, whose directory is made (mode 0700) if it is not there, and answers until stopped. A
    /// socket left behind by a host that is no more is replaced.
    ///
    /// # Errors
    /// If another host answers there, or the system refuses.
    pub fn start(socket: &Path, host: Arc<dyn Host>) -> Result<Self, ServeError> {
        let listener = listen(socket)?;
        // A door that nobody opens does not stay.
        Self::behind(listener, socket, host).inspect_err(|_| drop(fs::remove_file(socket)))
    }

    fn behind(listener: UnixListener, socket: &Path, host: Arc<dyn Host>) -> Result<Self, ServeError> {
        let failed = |attempted| move |source| ServeError::Io { attempted, path: socket.to_owned(), source };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed("make a runtime to serve"))?;
        let (stop, stopped) = oneshot::channel();
        let serving = move || runtime.block_on(serve(listener, host, stopped));
        let thread = thread::Builder::new()
            .name("kiln-api".into())
            .spawn(serving)
            .map_err(failed("start a thread to serve"))?;
        Ok(Self { socket: socket.to_owned(), stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Takes no more commands, lets those under way end, and takes the socket away. Whoever stops a host must end
    /// what runs in it first: a log that is followed goes on until its reader goes.
    pub fn stop(mut self) {
        self.close();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed there.
            let _ = thread.join();
        }
    }

    fn close(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
            let _ = fs::remove_file(&self.socket);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
    }
}

fn listen(socket: &Path) -> Result<UnixListener, ServeError> {
    let failed = |attempted| move |source| ServeError::Io { attempted, path: socket.to_owned(), source };
    if let Some(directory) = socket.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed("make the directory of"))?;
    }
    let reach = Reach::to(socket).map_err(failed("reach"))?;
    if UnixStream::connect(reach.path()).is_ok() {
        return Err(ServeError::Taken(socket.to_owned()));
    }
    match fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("replace")(e)),
        _ => {}
    }
    let listener = UnixListener::bind(reach.path()).map_err(failed("listen on"))?;
    fs::set_permissions(socket, Permissions::from_mode(0o600)).map_err(failed("close to others"))?;
    listener.set_nonblocking(true).map_err(failed("listen on"))?;
    Ok(listener)
}

async fn serve(listener: UnixListener, host: Arc<dyn Host>, stopped: oneshot::Receiver<()>) {
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(e) => panic!("a listening socket could not be given to the runtime: {e}"),
    };
    let service = routes(host).into_make_service_with_connect_info::<Peer>();
    let stopped = async move {
        // An error means that the server was dropped: stop as well.
        let _ = stopped.await;
    };
    // Accepting never gives up: axum retries and this only returns when stopped.
    let _ = axum::serve(listener, service).with_graceful_shutdown(stopped).await;
}
