//! Follows files that are replaced while the node runs.

use super::files::{self, Look};
use super::{Error, Settings};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A configuration, the files that it was made of, and how they looked.
pub(super) struct Reloading<C> {
    settings: Settings,
    build: fn(&Settings) -> Result<C, Error>,
    present: RwLock<Arc<C>>,
    seen: Mutex<Seen>,
}

struct Seen {
    at: Instant,
    loaded: Look,
    /// Files that could not be used, and whether that was logged.
    refused: Option<(Look, bool)>,
}

/// What to do after a look at the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Keep,
    /// Read them. `complain`: log it if they cannot be used.
    Load {
        complain: bool,
    },
}

/// Files that look new are read. They may be replaced one after the other, so a certificate may be there before its
/// key: if they cannot be used, they are read once more at the next look, and then the reason is logged, once.
fn decide(loaded: &Look, refused: Option<&(Look, bool)>, now: &Look) -> Action {
    match refused {
        Some((look, true)) if look == now => Action::Keep,
        Some((look, false)) if look == now => Action::Load { complain: true },
        _ if loaded == now => Action::Keep,
        _ => Action::Load { complain: false },
    }
}

impl<C> Reloading<C> {
    pub fn open(
        settings: &Settings,
        build: fn(&Settings) -> Result<C, Error>,
    ) -> Result<Reloading<C>, Error> {
        // Looks first: a file that changes while it is read looks new at the next look.
        let loaded = Look::at(settings);
        let present = RwLock::new(Arc::new(build(settings)?));
        files::warn_of_readers(settings);
        Ok(Reloading {
            settings: settings.clone(),
            build,
            present,
            seen: Mutex::new(Seen {
                at: Instant::now(),
                loaded,
                refused: None,
            }),
        })
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn config(&self) -> Arc<C> {
        let present = self.present.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&present)
    }

    pub fn refresh(&self, now: Instant) {
        // Another thread is looking.
        let Ok(mut seen) = self.seen.try_lock() else {
            return;
        };
        if now.saturating_duration_since(seen.at) < LOOK_EVERY {
            return;
        }
        seen.at = now;
        self.look(&mut seen);
    }

    fn look(&self, seen: &mut Seen) {
        let look = Look::at(&self.settings);
        let Action::Load { complain } = decide(&seen.loaded, seen.refused.as_ref(), &look) else {
            return;
        };
        match (self.build)(&self.settings) {
            Ok(config) => {
                let config = Arc::new(config);
                *self.present.write().unwrap_or_else(PoisonError::into_inner) = config;
                (seen.loaded, seen.refused) = (look, None);
                files::warn_of_readers(&self.settings);
                log::info!(
                    "the TLS files have changed and are used from now on ({})",
                    self.names()
                );
            }
            Err(error) => {
                if complain {
                    log::error!(
                        "the TLS files have changed and cannot be used, the old ones stay in use: {error}"
                    );
                }
                seen.refused = Some((look, complain));
            }
        }
    }

    fn names(&self) -> String {
        let Settings {
            cert_file,
            key_file,
            trusted_ca_file,
            crl_file,
            ..
        } = &self.settings;
        let files = [cert_file, key_file, trusted_ca_file, crl_file];
        let names = files
            .into_iter()
            .flatten()
            .map(|path| path.display().to_string());
        names.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_files_are_read_and_complained_about_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cert.pem");
        let settings = Settings {
            cert_file: Some(path.clone()),
            ..Settings::default()
        };
        let [missing, first, second] = [None, Some("first"), Some("the second")].map(|text| {
            if let Some(text) = text {
                std::fs::write(&path, text).expect("written");
            }
            Look::at(&settings)
        });
        let quiet = Action::Load { complain: false };
        let loud = Action::Load { complain: true };
        assert_eq!(decide(&first, None, &first), Action::Keep);
        assert_eq!(decide(&first, None, &second), quiet);
        assert_eq!(decide(&first, None, &missing), quiet);
        let once = Some((second.clone(), false));
        let twice = Some((second.clone(), true));
        assert_eq!(decide(&first, once.as_ref(), &second), loud);
        assert_eq!(decide(&first, twice.as_ref(), &second), Action::Keep);
        assert_eq!(decide(&first, twice.as_ref(), &missing), quiet);
        assert_eq!(decide(&first, twice.as_ref(), &first), Action::Keep);
    }
}
