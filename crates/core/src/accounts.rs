//! Fair share between projects, and between the users of each: stride scheduling at two levels.
//!
//! Whoever is handed work advances by its time over its weight, and the least advanced is next. Who had nothing to do
//! starts again level with the others: a share that was not used is not owed.

use std::collections::BTreeMap;

/// A user of a project, by the place in [`Accounts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AccountId(u32);

/// What a person sets of a project or a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Of two that have work, one of twice the weight gets twice the time; 1 to [`Share::MAX_WEIGHT`].
    pub weight: u32,
    /// Slots that it may hold at once.
    pub max_slots: Option<u32>,
}

impl Share {
    pub const DEFAULT_WEIGHT: u32 = 100;
    pub const MAX_WEIGHT: u32 = 10_000;
}

impl Default for Share {
    fn default() -> Self {
        Self { weight: Self::DEFAULT_WEIGHT, max_slots: None }
    }
}

/// A project or a user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    Project(String),
    User(String),
}

/// How far each has advanced: microseconds of slots at the default weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    project: u64,
    project_index: u32,
    user: u64,
    account: u32,
}

impl Turn {
    /// Whether this one's turn comes at most `ms` of share later than that one's.
    pub fn is_within(self, ms: u64, earlier: Self) -> bool {
        if self.project_index == earlier.project_index {
            self.user <= earlier.user.saturating_add(ms.saturating_mul(1000))
        } else {
            self.project <= earlier.project.saturating_add(ms.saturating_mul(1000))
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Accounts {
    projects: Vec<Project>,
    users: Vec<User>,
    accounts: Vec<Account>,
    /// Also of those that have no job yet.
    shares: BTreeMap<Party, Share>,
}

#[derive(Debug)]
struct Project {
    name: String,
    share: Share,
    advanced: u64,
    /// Jobs that have not ended.
    jobs: u32,
    slots: u32,
}

#[derive(Debug)]
struct User {
    name: String,
    share: Share,
    slots: u32,
}

#[derive(Debug)]
struct Account {
    project: u32,
    user: u32,
    advanced: u64,
    jobs: u32,
}

impl Accounts {
    pub fn set(&mut self, party: Party, share: Share) {
        let weight = share.weight.clamp(1, Share::MAX_WEIGHT);
        let share = Share { weight, ..share };
        match &party {
            Party::Project(name) => {
                self.projects.iter_mut().filter(|known| known.name == *name).for_each(|p| p.share = share);
            }
            Party::User(name) => {
                self.users.iter_mut().filter(|known| known.name == *name).for_each(|u| u.share = share);
            }
        }
        self.shares.insert(party, share);
    }

    /// Made where there is none.
    pub fn account(&mut self, project: &str, user: &str) -> AccountId {
        let share = |party| self.shares.get(&party).copied().unwrap_or_default();
        let known = self.projects.iter().position(|known| known.name == project);
        let project = known.unwrap_or_else(|| {
            let (name, share) = (project.to_owned(), share(Party::Project(project.to_owned())));
            self.projects.push(Project { name, share, advanced: 0, jobs: 0, slots: 0 });
            self.projects.len() - 1
        }) as u32;
        let known = self.users.iter().position(|known| known.name == user);
        let user = known.unwrap_or_else(|| {
            let (name, share) = (user.to_owned(), share(Party::User(user.to_owned())));
            self.users.push(User { name, share, slots: 0 });
            self.users.len() - 1
        }) as u32;
        let known = self.accounts.iter().position(|known| (known.project, known.user) == (project, user));
        let account = known.unwrap_or_else(|| {
            self.accounts.push(Account { project, user, advanced: 0, jobs: 0 });
            self.accounts.len() - 1
        });
        AccountId(account as u32)
    }

    /// One of its jobs is there, or goes on.
    pub fn enter(&mut self, id: AccountId) {
        let project = self.accounts[id.0 as usize].project;
        if self.projects[project as usize].jobs == 0 {
            let level = self.projects.iter().filter(|known| known.jobs > 0).map(|known| known.advanced).min();
            let entering = &mut self.projects[project as usize];
            entering.advanced = entering.advanced.max(level.unwrap_or(0));
        }
        self.projects[project as usize].jobs += 1;
        if self.accounts[id.0 as usize].jobs == 0 {
            let beside = self.accounts.iter().filter(|known| known.project == project && known.jobs > 0);
            let level = beside.map(|known| known.advanced).min();
            let entering = &mut self.accounts[id.0 as usize];
            entering.advanced = entering.advanced.max(level.unwrap_or(0));
        }
        self.accounts[id.0 as usize].jobs += 1;
    }

    /// One of its jobs has ended.
    pub fn leave(&mut self, id: AccountId) {
        let account = &mut self.accounts[id.0 as usize];
        account.jobs = account.jobs.saturating_sub(1);
        let project = &mut self.projects[account.project as usize];
        project.jobs = project.jobs.saturating_sub(1);
    }

    /// It was handed so many milliseconds of a slot; negative to take some back.
    pub fn charge(&mut self, id: AccountId, ms: i64) {
        let us = ms.saturating_mul(1000 * i64::from(Share::DEFAULT_WEIGHT));
        let weighed = |weight: u32| us / i64::from(weight);
        let account = &mut self.accounts[id.0 as usize];
        let user = self.users[account.user as usize].share.weight;
        account.advanced = account.advanced.saturating_add_signed(weighed(user));
        let project = &mut self.projects[account.project as usize];
        project.advanced = project.advanced.saturating_add_signed(weighed(project.share.weight));
    }

    pub fn turn(&self, id: AccountId) -> Turn {
        let account = &self.accounts[id.0 as usize];
        Turn {
            project: self.projects[account.project as usize].advanced,
            project_index: account.project,
            user: account.advanced,
            account: id.0,
        }
    }

    pub fn hold_slot(&mut self, id: AccountId) {
        let account = &self.accounts[id.0 as usize];
        self.projects[account.project as usize].slots += 1;
        self.users[account.user as usize].slots += 1;
    }

    /// Whether that made room below a cap.
    pub fn free_slot(&mut self, id: AccountId) -> bool {
        let was_full = self.is_full(id);
        let account = &self.accounts[id.0 as usize];
        let (project, user) = (account.project as usize, account.user as usize);
        self.projects[project].slots = self.projects[project].slots.saturating_sub(1);
        self.users[user].slots = self.users[user].slots.saturating_sub(1);
        was_full && !self.is_full(id)
    }

    /// Whether the project or the user holds all the slots that it may.
    pub fn is_full(&self, id: AccountId) -> bool {
        self.full_party(id).is_some()
    }

    /// Which of the two it is, with its cap.
    pub fn full_party(&self, id: AccountId) -> Option<(Party, u32)> {
        let account = &self.accounts[id.0 as usize];
        let (project, user) = (&self.projects[account.project as usize], &self.users[account.user as usize]);
        let full = |share: Share, slots| share.max_slots.filter(|cap| slots >= *cap);
        full(project.share, project.slots)
            .map(|cap| (Party::Project(project.name.clone()), cap))
            .or_else(|| full(user.share, user.slots).map(|cap| (Party::User(user.name.clone()), cap)))
    }

    /// Slots that each project and user with a job holds now.
    pub fn slots(&self) -> BTreeMap<Party, u32> {
        let projects = self.projects.iter().map(|known| (Party::Project(known.name.clone()), known.slots));
        let users = self.users.iter().map(|known| (Party::User(known.name.clone()), known.slots));
        projects.chain(users).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out frames of 10 ms; how many each account got.
    fn run(accounts: &mut Accounts, ids: &[AccountId], frames: usize) -> Vec<usize> {
        let mut got = vec![0; ids.len()];
        for _ in 0..frames {
            let next = (0..ids.len()).min_by_key(|index| accounts.turn(ids[*index])).unwrap();
            accounts.charge(ids[next], 10);
            got[next] += 1;
        }
        got
    }

    #[test]
    fn time_goes_by_weight_between_projects_and_evenly_between_users_of_one() {
        let mut accounts = Accounts::default();
        accounts.set(Party::Project("film".into()), Share { weight: 300, max_slots: None });
        let ids = [("film", "ada"), ("film", "bob"), ("ad", "ada")]
            .map(|(project, user)| accounts.account(project, user));
        ids.iter().for_each(|id| accounts.enter(*id));
        assert_eq!(run(&mut accounts, &ids, 400), [150, 150, 100]);
    }

    #[test]
    fn who_comes_back_is_owed_nothing() {
        let mut accounts = Accounts::default();
        let (ada, bob) = (accounts.account("", "ada"), accounts.account("", "bob"));
        accounts.enter(ada);
        run(&mut accounts, &[ada], 1000);
        accounts.enter(bob);
        assert_eq!(run(&mut accounts, &[ada, bob], 100), [50, 50]);
    }

    #[test]
    fn a_cap_is_the_projects_or_the_users() {
        let mut accounts = Accounts::default();
        accounts.set(Party::User("ada".into()), Share { max_slots: Some(2), ..Share::default() });
        let (film, ad) = (accounts.account("film", "ada"), accounts.account("ad", "ada"));
        accounts.hold_slot(film);
        assert!(!accounts.is_full(ad));
        accounts.hold_slot(ad);
        assert_eq!(accounts.full_party(film), Some((Party::User("ada".into()), 2)));
        assert!(accounts.free_slot(ad));
        assert!(!accounts.is_full(film));
    }
}
