//! What is plugged into what: opens the database and the secret store, builds the connectors, and
//! hands the parts to whoever serves, works or administers.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;
use url::Url;

use crate::{
    audit::AuditedStore,
    config::{Config, Database, QueueKind, RateLimits, SecretsKind, Service as ServiceConfig},
    connectors::{self, ApiClient},
    db::{
        self, Db, DbError,
        api_key::{self, ApiKey, ApiKeyId, KeyScope, MAX_LIVE_KEYS},
        audit_log::{self, Act},
        metric_total, schema,
    },
    domain::{
        Clock, EntityId, ServiceName,
        audit::{Action, Origin},
        ids::Id,
    },
    integrations::Integrations,
    keys::{self, Key},
    loops::Loops,
    metrics::Metrics,
    oauth::{OAuthConfig, endpoint::TokenEndpoint, refresh::Refresher, tokens::TokenService},
    providers,
    queue::{Broker, pubsub::PubSub},
    secrets::{
        Keys, SecretManager, SecretManagerError, SecretStore, Vault, VaultError, VaultKey,
        gcp::Place,
    },
    sync::{Engine, Limits, Service},
};

/// A run is held this long at most before it is asked for again.
const MAX_HOLD: Duration = Duration::from_secs(600);
/// Memory for request bodies that are being read at the same time, in KiB. One of the longest always
/// has room.
const BODIES_KIB: usize = 64 * 1024;
/// A key's use is noted once in this time.
const NOTE_USE_AFTER: TimeDelta = TimeDelta::minutes(1);
/// In the data folder: held by the one `up` there may be.
const LOCK_FILE: &str = "nucleus.lock";
/// [`is_data_dir_locked`] has the lock for less than this,
const LOOK_AT_LOCK: Duration = Duration::from_millis(200);
/// unless the machine has much else to do: so often it is tried again.
const MORE_TRIES_AT_LOCK: usize = 4;
/// In the data folder: the vault.
const VAULT_FOLDER: &str = "vault";
/// In the data folder: the vault's key, where none is configured.
const VAULT_KEY_FILE: &str = "vault.key";

/// The whole program, whatever role it plays.
pub struct App {
    /// What runs need: store, clock, tokens, connectors.
    pub engine: Engine,
    /// Makes and removes connections.
    pub integrations: Integrations,
    /// The registered client of each service.
    pub clients: BTreeMap<ServiceName, OAuthConfig>,
    /// The operator's key, where one is configured.
    pub operator_key: Option<SecretString>,
    /// How browsers reach the API, where it was given; otherwise the address it listens on.
    pub public_url: Option<Url>,
    /// Origins to which an OAuth flow may send the browser back.
    pub return_to: Vec<String>,
    /// Longest request body, in bytes.
    pub body_limit_bytes: usize,
    /// How many requests who may send.
    pub rate_limits: RateLimits,
    /// Proxies in front of the API that add the address of their client to `X-Forwarded-For`.
    pub trusted_proxies: usize,
    /// When keys were used, as far as that is not in the database yet.
    key_uses: Mutex<BTreeMap<ApiKeyId, DateTime<Utc>>>,
    /// Room for the bodies that are being read, in KiB.
    pub bodies: Arc<Semaphore>,
    /// Runs that one worker carries out at the same time.
    pub max_concurrent_runs: usize,
    /// How long events are kept.
    pub retention_days: u32,
    /// Where messages go.
    pub queue: Queue,
    /// Says that there is something in the queue, or to be published.
    pub wake: Notify,
    /// Work that goes on although nobody waits for it any more.
    pub tasks: TaskTracker,
    /// The loops that this process is to run.
    pub loops: Loops,
}

/// Where messages go.
#[derive(Clone)]
pub enum Queue {
    /// Workers lease them from the outbox.
    Embedded,
    /// A relay publishes them, and workers receive them.
    Broker(Arc<dyn Broker>),
}

impl Queue {
    async fn open(kind: &QueueKind) -> anyhow::Result<Self> {
        match kind {
            QueueKind::Embedded => Ok(Self::Embedded),
            QueueKind::PubSub {
                project_id,
                emulator,
            } => {
                let broker = PubSub::new(project_id, emulator.as_deref())
                    .await
                    .context("Pub/Sub cannot be used")?;
                Ok(Self::Broker(Arc::new(broker)))
            }
        }
    }
}

/// How much of the database's and the vault's first set-up a command may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// Apply migrations, make the vault's key: the first start of `up`.
    Create,
    /// The schema must be current and the vault's key must be there.
    Expect,
}

impl App {
    /// Opens everything that `config` names.
    pub async fn build(
        config: &Config,
        clock: Arc<dyn Clock>,
        setup: Setup,
    ) -> anyhow::Result<Arc<Self>> {
        let queue = Queue::open(&config.queue.kind).await?;
        Self::build_on(config, clock, setup, queue).await
    }

    /// As [`App::build`], with messages going to `queue`.
    pub async fn build_on(
        config: &Config,
        clock: Arc<dyn Clock>,
        setup: Setup,
        queue: Queue,
    ) -> anyhow::Result<Arc<Self>> {
        prepare_data_dir(&config.data_dir)?;
        warn_if_open_to_others(&config.data_dir)?;
        let url = config.database.url.expose_secret();
        let db = Db::connect(url, limits(&config.database))
            .await
            .context("the database cannot be opened")?;
        if setup == Setup::Create {
            schema::migrate(&db, url).await?;
        }
        schema::status(&db).await?.check()?;
        let db = match queue {
            Queue::Embedded => db,
            Queue::Broker(_) => db.relayed(),
        };
        let store = open_secrets(config, setup).await?;
        let tasks = TaskTracker::new();
        let audited = AuditedStore::new(store, db.clone(), Arc::clone(&clock), tasks.clone());
        let secrets: Arc<dyn SecretStore> = Arc::new(audited);
        let clients: BTreeMap<ServiceName, OAuthConfig> = config
            .services
            .iter()
            .map(|(&name, service)| (name, oauth_client(name, service)))
            .collect();
        let endpoint = TokenEndpoint::new().context("the HTTP client cannot be made")?;
        let services = services(config);
        let metrics = Arc::new(Metrics::new(clock.now(), services.keys().copied()));
        let refresher = Refresher {
            db: db.clone(),
            secrets: Arc::clone(&secrets),
            clock: Arc::clone(&clock),
            endpoint,
            services: clients.clone().into_iter().collect::<HashMap<_, _>>(),
            metrics: Arc::clone(&metrics),
        };
        let tokens = Arc::new(TokenService::new(refresher, tasks.clone()));
        let integrations = Integrations::new(
            db.clone(),
            secrets,
            Arc::clone(&clock),
            Arc::clone(&tokens),
            Arc::clone(&metrics),
        );
        let engine = Engine {
            db,
            clock,
            tokens,
            client: ApiClient::new().context("the HTTP client cannot be made")?,
            services,
            metrics,
            limits: Limits {
                max_attempts: i32::try_from(config.sync.max_attempts).unwrap_or(i32::MAX),
                max_hold: MAX_HOLD,
            },
        };
        Ok(Arc::new(Self {
            engine,
            integrations,
            clients,
            operator_key: config.http.operator_key.clone(),
            public_url: config.http.public_url.clone(),
            return_to: config.http.return_to.clone(),
            body_limit_bytes: config.http.body_limit_bytes,
            rate_limits: config.http.rate_limits,
            trusted_proxies: config.http.trusted_proxies,
            key_uses: Mutex::default(),
            bodies: Arc::new(Semaphore::new(
                BODIES_KIB.max(config.http.body_limit_bytes / 1024),
            )),
            max_concurrent_runs: config.sync.max_concurrent_runs,
            retention_days: config.events.retention_days,
            queue,
            wake: Notify::new(),
            tasks,
            loops: Loops::default(),
        }))
    }

    /// The program's time.
    pub fn now(&self) -> DateTime<Utc> {
        self.engine.clock.now()
    }

    /// Moves what this process has counted to the database, where all processes add up.
    pub async fn save_totals(&self) -> Result<(), DbError> {
        let metrics = &self.engine.metrics;
        let _saving = metrics.saving().await;
        let unsaved = metrics.take_unsaved();
        if unsaved.is_empty() {
            return Ok(());
        }
        let saved = async {
            let tx = self.engine.db.begin().await?;
            metric_total::add(&tx, &unsaved.totals()).await?;
            tx.commit().await
        };
        let saved = saved.await;
        if saved.is_err() {
            metrics.give_back(unsaved);
        }
        saved
    }

    /// Notes that a key is used, for [`App::save_key_uses`].
    pub fn note_key_use(&self, key: &ApiKey) {
        let now = self.now();
        if key
            .last_used_at
            .is_none_or(|last| last + NOTE_USE_AFTER <= now)
        {
            let mut uses = self.key_uses.lock().unwrap_or_else(PoisonError::into_inner);
            uses.insert(key.id, now);
        }
    }

    /// Moves the times at which keys were used to the database. Requests do not wait for it.
    pub async fn save_key_uses(&self) -> Result<(), DbError> {
        let noted = || self.key_uses.lock().unwrap_or_else(PoisonError::into_inner);
        let uses = std::mem::take(&mut *noted());
        if uses.is_empty() {
            return Ok(());
        }
        let saving = async {
            let tx = self.engine.db.begin().await?;
            api_key::note_uses(&tx, &uses).await?;
            tx.commit().await
        };
        let saved = saving.await;
        if saved.is_err() {
            let mut later = noted();
            for (id, at) in uses {
                later.entry(id).or_insert(at);
            }
        }
        saved
    }

    /// Makes a key for an entity, or for the operator, and keeps its hash.
    pub async fn create_key(
        &self,
        entity: Option<EntityId>,
        scope: KeyScope,
    ) -> anyhow::Result<SecretString> {
        let key = Key::generate();
        self.keep_key(&key, entity, scope).await?;
        Ok(key.into_secret())
    }

    async fn keep_key(
        &self,
        key: &Key,
        entity: Option<EntityId>,
        scope: KeyScope,
    ) -> anyhow::Result<()> {
        let row = ApiKey {
            id: Id::new(),
            entity_id: entity,
            hash: keys::hash(key.expose()),
            scope: scope.as_str().to_owned(),
            created_at: self.now(),
            revoked_at: None,
            last_used_at: None,
        };
        let tx = self.engine.db.begin().await?;
        if let Some(id) = entity
            && !api_key::has_room(&tx, id, scope).await?
        {
            bail!(
                "entity {id} has {MAX_LIVE_KEYS} live keys of scope {scope}, as many as rotating \
                 needs: revoke one with `nucleus key revoke ID`; `nucleus key list` shows them"
            );
        }
        api_key::insert(&tx, &row).await?;
        let target = row.id.to_string();
        let act = Act::done(entity, Action::KeyCreate, &target);
        audit_log::append(&tx, &act, row.created_at).await?;
        Ok(tx.commit().await?)
    }
}

/// How many connections there may be, and how long what is waited for.
pub fn limits(database: &Database) -> db::Limits {
    db::Limits {
        max_connections: database.max_connections,
        acquire_timeout: database.acquire_timeout,
        statement_timeout: database.statement_timeout,
        lock_timeout: database.lock_timeout,
        idle_in_transaction_timeout: database.idle_in_transaction_timeout,
    }
}

/// Takes the data folder for this process alone; the lock goes with the file.
pub async fn lock_data_dir(data_dir: &Path, clock: &dyn Clock) -> anyhow::Result<File> {
    prepare_data_dir(data_dir)?;
    let path = data_dir.join(LOCK_FILE);
    let file = File::create(&path).with_context(|| not_writable(data_dir))?;
    let mut locked = file.try_lock();
    for _ in 0..MORE_TRIES_AT_LOCK {
        if !matches!(locked, Err(TryLockError::WouldBlock)) {
            break;
        }
        // Whoever looks at the lock has it for a moment.
        clock.sleep(LOOK_AT_LOCK).await;
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another `nucleus up` holds the data folder {}: stop it, or give this one a folder of \
             its own with --data-dir",
            data_dir.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} cannot be locked", path.display()))
        }
    }
}

/// Whether an `up` has the data folder. Makes nothing.
pub fn is_data_dir_locked(data_dir: &Path) -> io::Result<bool> {
    let file = match File::open(data_dir.join(LOCK_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn not_writable(data_dir: &Path) -> String {
    format!(
        "the data folder {} cannot be written to: make it writable for this user, or choose \
         another with --data-dir",
        data_dir.display()
    )
}

/// Makes the data folder, for this user alone because mail will be in it, or says why it cannot be
/// used.
pub fn prepare_data_dir(data_dir: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .with_context(|| not_writable(data_dir))
}

fn warn_if_open_to_others(data_dir: &Path) -> io::Result<()> {
    let mode = data_dir.metadata()?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(
            folder = %data_dir.display(),
            mode = format!("{mode:04o}"),
            "the data folder is open to others, and mail is in it: run chmod 700"
        );
    }
    Ok(())
}

/// The vault as it is: nothing is made, removed or locked. `None` where there is none yet.
pub async fn look_at_vault(config: &Config) -> Result<Option<Vault>, VaultError> {
    let folder = config.data_dir.join(VAULT_FOLDER);
    match configured_vault_keys(config) {
        Some(keys) => Vault::look(folder, keys).await,
        None => Vault::look_with_key_file(folder, config.data_dir.join(VAULT_KEY_FILE)).await,
    }
}

fn configured_vault_keys(config: &Config) -> Option<Keys> {
    let read = |bytes: &SecretBox<[u8; 32]>| {
        VaultKey::new(SecretBox::new(Box::new(*bytes.expose_secret())))
    };
    let key = config.secrets.vault_key.as_ref().map(read)?;
    let previous = config.secrets.previous_vault_key.as_ref().map(read);
    Some(Keys::new(key, previous))
}

/// Secret Manager, where credentials are kept there. It is not asked for anything yet.
pub async fn secret_manager(config: &Config) -> Result<Option<SecretManager>, SecretManagerError> {
    let SecretsKind::Gcp {
        project_id,
        endpoint,
        locations,
    } = &config.secrets.kind
    else {
        return Ok(None);
    };
    let place = Place {
        project_id: project_id.clone(),
        endpoint: endpoint.as_ref().map(Url::to_string),
        locations: locations.clone(),
    };
    SecretManager::new(place).await.map(Some)
}

async fn open_secrets(config: &Config, setup: Setup) -> anyhow::Result<Arc<dyn SecretStore>> {
    match secret_manager(config).await? {
        Some(secrets) => Ok(Arc::new(secrets)),
        None => Ok(Arc::new(open_vault(config, setup).await?)),
    }
}

/// The vault of the configuration.
pub async fn open_vault(config: &Config, setup: Setup) -> anyhow::Result<Vault> {
    let folder = config.data_dir.join(VAULT_FOLDER);
    let key_file = config.data_dir.join(VAULT_KEY_FILE);
    if let Some(keys) = configured_vault_keys(config) {
        return Ok(Vault::open(folder, keys).await?);
    }
    if setup == Setup::Expect {
        return Ok(Vault::open_with_key_file(folder, key_file).await?);
    }
    let (vault, made) = Vault::open_or_create(folder, key_file.clone()).await?;
    if made {
        tracing::warn!(
            file = %key_file.display(),
            "the vault's key was made; without it the stored credentials are lost: keep a copy"
        );
    }
    Ok(vault)
}

/// A service's authorization server and API, and its registered client.
pub fn oauth_client(name: ServiceName, service: &ServiceConfig) -> OAuthConfig {
    OAuthConfig {
        provider: providers::of(name),
        client_id: service.client_id.clone(),
        client_secret: service.client_secret.clone(),
        authorize_url: service.authorize_url.clone(),
        token_url: service.token_url.clone(),
        revoke_url: service.revoke_url.clone(),
        api_url: service.api_url.clone(),
    }
}

fn services(config: &Config) -> BTreeMap<ServiceName, Service> {
    let quota = config
        .services
        .get(&ServiceName::Gmail)
        .map(|service| service.quota)
        .unwrap_or_default();
    connectors::registry(quota, config.sync.fetch_concurrency)
        .into_iter()
        .filter_map(|(name, connector)| {
            let api_url = config.services.get(&name)?.api_url.clone();
            Some((name, Service { connector, api_url }))
        })
        .collect()
}

/// Makes the operator's first key where there is none at all.
pub async fn first_operator_key(app: &App) -> anyhow::Result<Option<SecretString>> {
    show_first_operator_key(app, |_| {}).await
}

/// As [`first_operator_key`]. The key is shown before it is kept: where the process dies between the
/// two, the next start shows another, and the other way round nobody would ever know the only key.
pub async fn show_first_operator_key(
    app: &App,
    show: impl FnOnce(&str),
) -> anyhow::Result<Option<SecretString>> {
    if app.operator_key.is_some() || api_key::has_operator_key(&app.engine.db).await? {
        return Ok(None);
    }
    let key = Key::generate();
    show(key.expose());
    Origin::command()
        .scope(app.keep_key(&key, None, KeyScope::Write))
        .await?;
    Ok(Some(key.into_secret()))
}
