//! [`Trial`]: one packet through a program and through the model.

use anyhow::{Context as _, Result};
use overlay_tests::{
    model::{Expected, Facts, Fate, Program, Super, canonical},
    programs::{Context, Programs},
};

use crate::{chance::Chance, generate, ledger::Ledger, mutate::Mutation, mutate::mutations, world::World};

/// What says what should become of a packet: the model, or a wrong one that must be found out.
pub(crate) type Model = fn(&Facts, Program, &[u8], Option<Super>) -> Expected;

/// How a packet comes about.
#[derive(Clone)]
pub(crate) struct Recipe {
    pub(crate) program: Program,
    /// The frame before anything happened to it.
    pub(crate) frame: Vec<u8>,
    pub(crate) mutations: Vec<Mutation>,
    pub(crate) context: Context,
}

/// The longest frame that `BPF_PROG_TEST_RUN` takes, with some room.
const LONGEST: usize = 3000;

impl Recipe {
    pub(crate) fn new(chance: &mut Chance, world: &World, program: Program) -> Self {
        let frame = generate::frame(chance, world, program);
        let mutations = mutations(chance, frame.len());
        let is_super = program != Program::XdpDecap && chance.one_in(12);
        let context = Context {
            gso_size: if is_super { chance.pick(&[1, 536, 1448]) } else { 0 },
            gso_segs: if is_super { chance.pick(&[0, 1, 2, 45]) } else { 0 },
        };
        Self { program, frame, mutations, context }
    }

    /// The packet, if need be filled up to what the kernel runs a program on: a socket buffer must hold what its
    /// EtherType promises, and nothing runs on a bare Ethernet header.
    pub(crate) fn trial(&self) -> Trial {
        let mut packet = self.frame.clone();
        self.mutations.iter().for_each(|mutation| mutation.apply(&mut packet));
        packet.truncate(LONGEST);
        packet.resize(packet.len().max(15), 0);
        let shortest = match [packet[12], packet[13]] {
            [0x08, 0x00] if self.program != Program::XdpDecap => 34,
            [0x86, 0xdd] if self.program != Program::XdpDecap => 54,
            _ => 15,
        };
        packet.resize(packet.len().max(shortest), 0);
        Trial { program: self.program, packet, context: self.context }
    }
}

/// A packet, and the program that it is for.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    pub(crate) program: Program,
    pub(crate) packet: Vec<u8>,
    pub(crate) context: Context,
}

impl Trial {
    /// What `model` says of it.
    pub(crate) fn expect(&self, model: Model, facts: &Facts) -> Expected {
        // The kernel does not know what kind of super-packet a test makes up, so it leaves its size alone.
        let super_packet = Super { segments: self.context.gso_segs, resizable: false };
        model(facts, self.program, &self.packet, (self.context.gso_size != 0).then_some(super_packet))
    }

    /// Why what the program did is not `fate`; `None`: it is.
    fn complaint(&self, fate: &Fate, verdict: i32, packet: &[u8]) -> Option<String> {
        let hook = Hook::of(self.program);
        let wanted = match fate {
            Fate::Untouched => hook.next,
            Fate::Dropped(_) => hook.drop,
            Fate::Becomes(_) | Fate::Answered(..) => hook.taken,
        };
        if verdict != wanted {
            return Some(format!("the verdict is {verdict}, not {wanted}"));
        }
        let wanted = match fate {
            Fate::Dropped(_) => return None,
            Fate::Untouched => &self.packet,
            Fate::Becomes(bytes) | Fate::Answered(_, bytes) => bytes,
        };
        let canonical = match (fate, self.program) {
            (Fate::Becomes(_), Program::ToOverlay) => canonical(packet),
            _ => Ok(packet.to_vec()),
        };
        match canonical {
            Err(complaint) => Some(format!("{complaint}: {}", hex(packet))),
            Ok(packet) if packet == *wanted => None,
            Ok(packet) => Some(format!("the packet became {}", hex(&packet))),
        }
    }
}

/// The verdicts of a hook.
struct Hook {
    next: i32,
    drop: i32,
    taken: i32,
}

impl Hook {
    const fn of(program: Program) -> Self {
        match program {
            // TC_ACT_UNSPEC, TC_ACT_SHOT, TC_ACT_REDIRECT
            Program::ToOverlay | Program::FromUnderlay => Self { next: -1, drop: 2, taken: 7 },
            // XDP_PASS, XDP_DROP, and XDP_PASS again: `from_underlay` takes it further.
            Program::XdpDecap => Self { next: 2, drop: 1, taken: 2 },
        }
    }
}

/// A world with the programs in it.
pub(crate) struct Ground {
    pub(crate) world: World,
    programs: Programs,
    ledger: Ledger,
}

impl Ground {
    pub(crate) fn new(world: World) -> Result<Self> {
        let mut programs = world.load()?;
        let ledger = Ledger::read(&mut programs, &world.facts)?;
        Ok(Self { world, programs, ledger })
    }

    /// Compares the program with `expected`: verdict, bytes, and the counters that should have moved.
    pub(crate) fn compare(&mut self, trial: &Trial, expected: &Expected) -> Result<Option<String>> {
        let run = self.programs.run_uncounted(trial.program.name(), &trial.packet, trial.context);
        let (verdict, packet) = run.with_context(|| format!("run on {}", hex(&trial.packet)))?;
        self.ledger.add(expected);
        match trial.complaint(&expected.fate, verdict, &packet) {
            None => self.ledger.moved(&mut self.programs, expected),
            complaint => Ok(complaint),
        }
    }

    /// Compares every counter with what was expected since the beginning.
    pub(crate) fn compare_counters(&mut self) -> Result<Option<String>> {
        self.ledger.whole(&mut self.programs, &self.world.facts)
    }

    /// Compares the program with the model, every counter included, whatever went wrong before.
    pub(crate) fn compare_alone(&mut self, trial: &Trial, model: Model) -> Result<Option<String>> {
        self.ledger = Ledger::read(&mut self.programs, &self.world.facts)?;
        match self.compare(trial, &trial.expect(model, &self.world.facts))? {
            None => self.compare_counters(),
            complaint => Ok(complaint),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
