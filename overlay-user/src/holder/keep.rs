//! Keeping the lease: renewed in time, restored when it was changed, taken back when it is free.

mod publish;

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::{HoldEvent, Holder};
use crate::backoff::Backoff;
use crate::datastore::{Change, Created, DatastoreError, Entry, Lifetime, Replaced, Scope};
use crate::lease::Node;

/// The longest sleep before a look at the clocks: one of them may have been set, the other stood still in suspend.
const NAP: Duration = Duration::from_secs(60);
/// How often within [`CONTEST`] our value is restored before we say that somebody else has our PublicIP.
const RESTORES: usize = 3;
const CONTEST: Duration = Duration::from_secs(600);

/// What the datastore says of our lease.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// It is there and ours.
    Held,
    /// It is not known to be there.
    Gone,
    /// Another node has it.
    Lost(Node),
    /// Somebody with our PublicIP writes it, time and again.
    Contested,
}

/// Why a round of following ends.
enum End {
    /// The receiver of the events is gone.
    Unheard,
    /// The datastore failed.
    Failed(DatastoreError),
    /// Look at the lease again.
    Again,
}

impl From<DatastoreError> for End {
    fn from(error: DatastoreError) -> Self {
        Self::Failed(error)
    }
}

impl Holder {
    /// Keeps the lease for as long as somebody receives the events. Never gives up: what goes wrong is told as an event.
    ///
    /// Dropping the future is safe; the lease stays until it expires.
    pub async fn keep(self, events: mpsc::Sender<HoldEvent>) {
        let keeper = Keeper {
            value: self.lease.node.to_value(),
            renew_at: Instant::now() + self.renew_after(),
            node: self.node.subscribe(),
            holder: self,
            events,
            standing: Standing::Held,
            told: None,
            restores: VecDeque::new(),
        };
        keeper.run().await;
    }
}

struct Keeper {
    holder: Holder,
    /// What the datastore is to hold, byte for byte.
    value: Vec<u8>,
    events: mpsc::Sender<HoldEvent>,
    standing: Standing,
    renew_at: Instant,
    /// The last event, so that none is told twice.
    told: Option<HoldEvent>,
    /// When our value was last restored.
    restores: VecDeque<Instant>,
    /// This node as the lease is to present it; the lease itself says how it does.
    node: watch::Receiver<Node>,
}

impl Keeper {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let start = Instant::now();
            let told = match self.follow().await {
                End::Unheard => return,
                End::Again => Ok(()),
                End::Failed(error) => self.failed(&error).await,
            };
            if told.is_err() {
                return;
            }
            if start.elapsed() > NAP {
                backoff.reset();
            }
            tokio::select! {
                () = backoff.wait() => {}
                () = self.events.closed() => return,
            }
        }
    }

    /// Looks at the lease, then follows its changes until something ends that.
    async fn follow(&mut self) -> End {
        match self.try_follow().await {
            Ok(()) => End::Again,
            Err(end) => end,
        }
    }

    async fn try_follow(&mut self) -> Result<(), End> {
        let store = std::sync::Arc::clone(&self.holder.store);
        let scope = Scope::Lease(self.holder.lease.subnet.to_string());
        let mut snapshot = store.snapshot(&scope).await?;
        self.reconcile(snapshot.entries.pop()).await?;
        self.publish().await?;
        let mut changes = store.watch(scope, &snapshot.position).await?;
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    // Older ones are echoes of what we wrote or saw since.
                    Some(Ok(Change::Put(entry))) if entry.revision <= self.holder.revision => {}
                    Some(Ok(Change::Put(entry))) => self.reconcile(Some(entry)).await?,
                    Some(Ok(Change::Deleted(_))) => self.reconcile(None).await?,
                    Some(Ok(Change::Config(_))) => {}
                    Some(Err(error)) => return Err(error.into()),
                    Some(Ok(Change::Gap)) | None => return Ok(()),
                },
                () = sleep(self.nap()) => self.look_at_the_clock().await?,
                _ = self.node.changed() => self.publish().await?,
                () = self.events.closed() => return Err(End::Unheard),
            }
        }
    }

    /// Makes the best of what the datastore holds at our key.
    async fn reconcile(&mut self, entry: Option<Entry>) -> Result<(), End> {
        let Some(entry) = entry else { return self.take_back().await };
        let wanted = self.wanted();
        if entry.value == wanted.to_value() {
            // Also when the answer to the writing of our new address was lost.
            self.become_node(wanted);
        }
        let node = Node::parse(&entry.value);
        match node {
            Ok(node) if !node.is_same_as(&self.holder.lease.node) => self.lost(node).await,
            _ if entry.value == self.value => {
                if self.holder.revision != entry.revision {
                    let lifetime = if entry.permanent { Lifetime::Permanent } else { Lifetime::Ttl };
                    self.holds(entry.revision, lifetime);
                }
                self.standing = Standing::Held;
                self.tell_held().await
            }
            node => {
                // A question leaves our data as they are, and is answered as often as it is asked.
                let harmless = node.is_ok_and(|node| node == self.holder.lease.node);
                self.restore(&entry, harmless).await
            }
        }
    }

    /// The key is free: makes it ours again.
    async fn take_back(&mut self) -> Result<(), End> {
        self.standing = Standing::Gone;
        // With no lease to rewrite, a new address can wait for nothing.
        self.become_node(self.wanted());
        let key = self.holder.lease.subnet.to_string();
        match self.holder.store.create(&key, &self.value, Lifetime::Ttl).await? {
            Created::Yes(revision) => {
                self.holds(revision, Lifetime::Ttl);
                self.standing = Standing::Held;
                let (lease, expires) = (self.holder.lease.clone(), self.holder.expires);
                self.tell(HoldEvent::Retaken { lease, expires }).await
            }
            Created::Exists => Err(End::Again),
        }
    }

    async fn lost(&mut self, to: Node) -> Result<(), End> {
        let standing = Standing::Lost(to.clone());
        if self.standing == standing {
            return Ok(());
        }
        self.standing = standing;
        self.tell(HoldEvent::Lost { to }).await
    }

    /// Writes our value over another one that claims to be ours.
    async fn restore(&mut self, entry: &Entry, harmless: bool) -> Result<(), End> {
        if !harmless && !self.may_restore() {
            self.standing = Standing::Contested;
            let reason = format!(
                "somebody else writes the lease of {} with our PublicIP {}: two nodes have one address",
                self.holder.lease.subnet,
                self.holder.lease.node.address()
            );
            return self.degraded(reason).await;
        }
        if !harmless {
            tracing::warn!(subnet = %self.holder.lease.subnet, "somebody else changed our lease: restoring it");
        }
        self.write(entry.revision, if entry.permanent { Lifetime::Permanent } else { Lifetime::Ttl }).await
    }

    /// Writes our value if the key is still at `revision`.
    async fn write(&mut self, revision: i64, lifetime: Lifetime) -> Result<(), End> {
        let key = self.holder.lease.subnet.to_string();
        match self.holder.store.replace(&key, revision, &self.value, lifetime).await? {
            Replaced::Yes(revision) => {
                self.holds(revision, lifetime);
                self.standing = Standing::Held;
                self.tell_held().await
            }
            Replaced::Changed(_) => Err(End::Again),
        }
    }

    fn may_restore(&mut self) -> bool {
        let now = Instant::now();
        while self.restores.front().is_some_and(|at| now.duration_since(*at) > CONTEST) {
            self.restores.pop_front();
        }
        let may = self.restores.len() < RESTORES;
        if may {
            self.restores.push_back(now);
        }
        may
    }

    fn holds(&mut self, revision: i64, lifetime: Lifetime) {
        self.holder.holds(revision, lifetime);
        self.renew_at = Instant::now() + self.holder.renew_after();
    }

    fn nap(&self) -> Duration {
        match self.standing {
            Standing::Held if self.holder.lifetime == Lifetime::Ttl => {
                self.renew_at.saturating_duration_since(Instant::now()).min(NAP)
            }
            _ => NAP,
        }
    }

    async fn look_at_the_clock(&mut self) -> Result<(), End> {
        match self.standing {
            Standing::Held if self.is_due() => self.write(self.holder.revision, Lifetime::Ttl).await,
            Standing::Contested | Standing::Gone => Err(End::Again),
            _ => Ok(()),
        }
    }

    /// Whether the lease wants renewing, by either clock.
    fn is_due(&self) -> bool {
        let remaining = self.holder.store.ttl().saturating_sub(self.holder.renew_after());
        let by_wall_clock = self.holder.expires.is_some_and(|at| SystemTime::now() + remaining >= at);
        self.holder.lifetime == Lifetime::Ttl && (by_wall_clock || Instant::now() >= self.renew_at)
    }

    /// The datastore failed. That alone harms nothing until the lease should have been renewed or taken back.
    async fn failed(&mut self, error: &DatastoreError) -> Result<(), End> {
        tracing::debug!(%error, "cannot look after our lease");
        if self.is_due() || self.standing != Standing::Held || !error.is_transient() {
            return self.degraded(format!("cannot renew the lease of {}: {error}", self.holder.lease.subnet)).await;
        }
        Ok(())
    }

    async fn degraded(&mut self, reason: String) -> Result<(), End> {
        // One outage has many errors, and is told once.
        if matches!(self.told, Some(HoldEvent::Degraded { .. })) {
            return Ok(());
        }
        self.tell(HoldEvent::Degraded { reason }).await
    }

    async fn tell_held(&mut self) -> Result<(), End> {
        let (lease, expires) = (self.holder.lease.clone(), self.holder.expires);
        self.tell(HoldEvent::Held { lease, expires }).await
    }

    async fn tell(&mut self, event: HoldEvent) -> Result<(), End> {
        if self.told.as_ref() == Some(&event) {
            return Ok(());
        }
        self.told = Some(event.clone());
        self.events.send(event).await.map_err(|_| End::Unheard)
    }
}
