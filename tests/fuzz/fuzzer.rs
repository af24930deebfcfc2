//! [`Fuzzer`]: many packets, what became of them, and the first that the model would have treated otherwise.

use std::{fmt, ops::RangeInclusive};

use anyhow::{Context as _, Result};
use overlay_common::{Encapsulation, Reason};
use overlay_tests::{
    families::Families,
    model::{Expected, Fate, Program},
};

use crate::{
    chance::Chance,
    trial::{Ground, Model, Recipe, Trial, hex},
    world::{self, World},
};

/// All counters are compared once in this many packets.
const BATCH: u64 = 1000;

/// Compares one program with a model.
pub(crate) struct Fuzzer {
    seed: u64,
    program: Program,
    encapsulation: Encapsulation,
    model: Model,
    grounds: Vec<Ground>,
}

impl Fuzzer {
    pub(crate) fn new(seed: u64, program: Program, encapsulation: Encapsulation, model: Model) -> Result<Self> {
        let [alone, ..] = world::all(encapsulation, Families::V6);
        let alone = World { name: "without IPv4", ..alone };
        let worlds = world::all(encapsulation, Families::Dual).into_iter().chain([alone]);
        let grounds = worlds.map(Ground::new).collect::<Result<_>>()?;
        Ok(Self { seed, program, encapsulation, model, grounds })
    }

    /// Runs that many packets, or as many as it takes to find a difference.
    pub(crate) fn run(&mut self, packets: u64) -> Result<(Census, Option<Difference>)> {
        let mut census = Census::default();
        for number in 0..packets {
            let (ground, recipe) = self.recipe(number);
            let ground = &mut self.grounds[ground];
            let trial = recipe.trial();
            let expected = trial.expect(self.model, &ground.world.facts);
            census.add(&expected);
            let mut complaint = ground.compare(&trial, &expected)?;
            if complaint.is_none() && ((number + 1) % BATCH == 0 || number + 1 == packets) {
                complaint = self.miscounted()?;
            }
            if let Some(complaint) = complaint {
                let difference = self.first_difference(number - number % BATCH..=number)?;
                let alone = format!("packet {number} of seed {:#x}, but not when it is alone: {complaint}", self.seed);
                return Ok((census, Some(difference.context(alone)?)));
            }
        }
        Ok((census, None))
    }

    /// The first of these packets, already run, that differs when all counters are looked at: one that is counted
    /// where nothing was expected shows only later. `None`: it takes the packets before it, or the identification
    /// that the kernel has drawn for an outer packet.
    fn first_difference(&mut self, numbers: RangeInclusive<u64>) -> Result<Option<Difference>> {
        for number in numbers {
            if let Some(difference) = self.difference(number)? {
                return Ok(Some(difference));
            }
        }
        Ok(None)
    }

    fn miscounted(&mut self) -> Result<Option<String>> {
        for ground in &mut self.grounds {
            if let Some(complaint) = ground.compare_counters()? {
                return Ok(Some(complaint));
            }
        }
        Ok(None)
    }

    /// The packet with this number and the ground it is for.
    fn recipe(&self, number: u64) -> (usize, Recipe) {
        let mut chance = Chance::of_packet(self.seed, number);
        let ground = chance.pick(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 3, 3]);
        (ground, Recipe::new(&mut chance, &self.grounds[ground].world, self.program))
    }

    /// What differs with this packet, made as small as that goes.
    fn difference(&mut self, number: u64) -> Result<Option<Difference>> {
        let (index, recipe) = self.recipe(number);
        let (seed, model, encapsulation, ground) =
            (self.seed, self.model, self.encapsulation, &mut self.grounds[index]);
        if ground.compare_alone(&recipe.trial(), model)?.is_none() {
            return Ok(None);
        }
        let mut differs = |trial: &Trial| ground.compare_alone(trial, model).is_ok_and(|complaint| complaint.is_some());
        let recipe = fewer_mutations(recipe, &mut differs);
        let trial = plainer(recipe.trial(), &mut differs);
        let complaint = ground.compare_alone(&trial, model)?.unwrap_or_default();
        let expected = trial.expect(model, &ground.world.facts);
        let world = ground.world.name;
        Ok(Some(Difference { seed, number, encapsulation, world, recipe, trial, expected, complaint }))
    }
}

/// Leaves out the mutations that a difference does not need.
fn fewer_mutations(mut recipe: Recipe, differs: &mut impl FnMut(&Trial) -> bool) -> Recipe {
    for index in (0..recipe.mutations.len()).rev() {
        let mut fewer = recipe.clone();
        fewer.mutations.remove(index);
        if differs(&fewer.trial()) {
            recipe = fewer;
        }
    }
    recipe
}

/// Cuts off the end and zeroes the bytes that a difference does not need.
fn plainer(mut trial: Trial, differs: &mut impl FnMut(&Trial) -> bool) -> Trial {
    for cut in [1024, 256, 64, 16, 4, 1] {
        // 34 bytes: the kernel runs no program on less of an IPv4 packet.
        while trial.packet.len() >= 34 + cut {
            let mut shorter = trial.clone();
            shorter.packet.truncate(trial.packet.len() - cut);
            if !differs(&shorter) {
                break;
            }
            trial = shorter;
        }
    }
    for at in (0..trial.packet.len()).filter(|at| !(12..14).contains(at)) {
        let mut zeroed = trial.clone();
        zeroed.packet[at] = 0;
        if zeroed.packet != trial.packet && differs(&zeroed) {
            trial = zeroed;
        }
    }
    trial
}

/// A packet that program and model treat differently.
pub(crate) struct Difference {
    seed: u64,
    pub(crate) number: u64,
    encapsulation: Encapsulation,
    world: &'static str,
    recipe: Recipe,
    pub(crate) trial: Trial,
    pub(crate) expected: Expected,
    complaint: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, number, encapsulation, world, recipe, trial, expected, complaint } = self;
        let name = trial.program.name();
        writeln!(f, "{name} on {encapsulation:?}, {world}, is not what the model says: {complaint}")?;
        writeln!(f, "  seed      OVERLAY_FUZZ_SEED={seed:#x}, packet {number}")?;
        writeln!(f, "  packet    {}", hex(&trial.packet))?;
        writeln!(f, "  context   {:?}", trial.context)?;
        writeln!(f, "  mutations {:?}", recipe.mutations)?;
        match &expected.fate {
            Fate::Becomes(bytes) => writeln!(f, "  model     becomes {}", hex(bytes))?,
            Fate::Answered(reason, bytes) => writeln!(f, "  model     {reason:?}, answered by {}", hex(bytes))?,
            fate => writeln!(f, "  model     {fate:?}")?,
        }
        write!(f, "            counts {:?}", expected.counted)
    }
}

/// What became of packets, by the model's word.
#[derive(Debug, Default, Clone)]
pub(crate) struct Census {
    pub(crate) untouched: u64,
    pub(crate) becomes: u64,
    /// Dropped, and an answer went back.
    pub(crate) answered: u64,
    /// How many of these two belong to a remote subnet.
    pub(crate) carried: u64,
    dropped: [u64; Reason::COUNT as usize],
}

impl Census {
    fn add(&mut self, expected: &Expected) {
        self.carried += u64::from(expected.counted.is_some());
        match &expected.fate {
            Fate::Untouched => self.untouched += 1,
            Fate::Becomes(_) => self.becomes += 1,
            Fate::Dropped(reason) => self.dropped[reason.index() as usize] += 1,
            Fate::Answered(reason, _) => {
                self.answered += 1;
                self.dropped[reason.index() as usize] += 1;
            }
        }
    }

    pub(crate) fn dropped(&self, reason: Reason) -> u64 {
        self.dropped[reason.index() as usize]
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} untouched, {} changed, {} carried", self.untouched, self.becomes, self.carried)?;
        write!(f, ", {} answered", self.answered)?;
        let dropped = Reason::ALL.iter().zip(self.dropped).filter(|(_, count)| *count > 0);
        dropped.into_iter().try_for_each(|(reason, count)| write!(f, ", {count} {reason:?}"))
    }
}
