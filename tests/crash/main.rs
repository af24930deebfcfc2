//! Agents that are killed behind every step they make: whatever is half done then is repaired, or taken away.

#[cfg(test)]
mod site;
#[cfg(test)]
mod steps;
