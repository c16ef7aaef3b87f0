/* The protocol of phid, for SPIN: reserve, act, observe, commit, with a crash of phid at every point, a hypervisor that fails and
 * lies, a keeper whose death takes the cell along, and two clients that want the same CPU, and may delete by force what is being made.
 *
 * What is durable: owner, state and intent (SQLite). What is lost by a crash: steps and requests under way; a client asks again with its key.
 * An action that was begun ends whatever becomes of phid, perhaps after the next one has started; what keeps that safe is that undoing
 * begins with a destroy, which the hypervisor does after it.
 *
 * -DMUTANT releases before it observes: SPIN must find a double owner. -DFORGETS takes a create up again after a start whose forced
 * delete is on record: SPIN must find the assertion. */

#define NOBODY 2
#define CRASHES 2
#define LIES 2

mtype = { none, create, destroy };			/* intents, and actions under way */
mtype = { absent, creating, created };			/* states of a record; a stopped one holds nothing and is as absent here */
mtype = { idle, act, look, done_step, ask_end, look_end, gone };	/* steps of phid */

byte owner = NOBODY;		/* the CPU's, in the database */
mtype state[2] = absent, intent[2] = none, step[2] = idle;
bool wants[2], ends[2];		/* requests that wait for an answer */
bool cell[2];			/* the hypervisor's truth */
mtype flying = none;		/* one action at a time: the driver has a mutex */
byte whose;
bool up = true;
byte crashes, lies, lives[2];

/* A cell runs on the CPU only while its container has the grant: what is released was seen gone. */
#define SAFE (!(cell[0] && cell[1]) && (!cell[0] || owner == 0) && (!cell[1] || owner == 1))

/* Where a forced delete is heard: with nothing under way, or in the steps of a create, which it supersedes. */
#define STOPS(i) (step[i] == idle || step[i] == act || step[i] == look)

proctype client(byte i)
{
	do
	:: lives[i] < 2 -> atomic { lives[i]++; wants[i] = true }
		if
		:: (!wants[i])				/* answered: made, refused or undone */
		:: ends[i] = true; (!ends[i] && !wants[i])	/* deleted by force, whatever becomes of the create */
		fi;
		if
		:: state[i] == created -> ends[i] = true; (!ends[i])
		:: else
		fi
	:: else -> break
	od
}

/* One transaction is one atomic step: SQLite's. */
proctype phid()
{
	byte i;

end:	do
	:: atomic { up && step[0] == idle && wants[0] -> i = 0 } goto request
	:: atomic { up && step[1] == idle && wants[1] -> i = 1 } goto request
	:: atomic { up && STOPS(0) && ends[0] -> i = 0 } goto end_request
	:: atomic { up && STOPS(1) && ends[1] -> i = 1 } goto end_request
	:: atomic { up && step[0] != idle -> i = 0 } goto advance
	:: atomic { up && step[1] != idle -> i = 1 } goto advance
	/* The guest ended, or its keeper took it along: phid sees it, and destroys what is left. */
	:: atomic { up && step[0] == idle && state[0] == created && !cell[0] -> intent[0] = destroy; step[0] = ask_end }
	:: atomic { up && step[1] == idle && state[1] == created && !cell[1] -> intent[1] = destroy; step[1] = ask_end }
	continue:
		skip
	od;

request:
	atomic {
		if
		:: !up || step[i] != idle || !wants[i]
		:: else ->
			if
			:: state[i] == created -> wants[i] = false		/* the same again */
			:: state[i] == absent && owner == NOBODY ->		/* reserve */
				owner = i; state[i] = creating; intent[i] = create; step[i] = act
			:: else -> wants[i] = false				/* refused: the CPU is the other's */
			fi
		fi
	}
	goto continue;

end_request:
	atomic {
		if
		:: !up || !STOPS(i) || !ends[i]
		:: else ->
			if
			:: step[i] != idle -> wants[i] = false; intent[i] = destroy; step[i] = ask_end
			:: step[i] == idle && state[i] == created -> intent[i] = destroy; step[i] = ask_end
			:: else -> ends[i] = false
			fi
		fi
	}
	goto continue;

advance:
	if
	:: atomic { up && step[i] == act && flying == none -> flying = create; whose = i; step[i] = look }
	:: atomic { up && step[i] == look && flying == none ->
		if
		:: cell[i] -> step[i] = done_step
		:: else -> step[i] = ask_end				/* undo */
		fi }
	:: atomic { up && step[i] == done_step -> assert(intent[i] == create); state[i] = created; intent[i] = none; step[i] = idle; wants[i] = false }	/* commit */
#ifdef MUTANT
	:: atomic { up && step[i] == ask_end -> step[i] = gone }
#else
	:: atomic { up && step[i] == ask_end && flying == none -> flying = destroy; whose = i; step[i] = look_end }
#endif
	:: atomic { up && step[i] == look_end && flying == none ->
		if
		:: !cell[i] -> step[i] = gone
		:: else -> step[i] = ask_end				/* once more; for ever: quarantined */
		fi }
	:: atomic { up && step[i] == gone -> owner = NOBODY; state[i] = absent; intent[i] = none; step[i] = idle; wants[i] = false; ends[i] = false }
	:: !up
	:: up && (step[i] == idle || (flying != none && (step[i] == act || step[i] == look || step[i] == ask_end || step[i] == look_end)))
	fi;
	goto continue
}

proctype hypervisor()
{
end:	do
	:: atomic { flying == create ->
		if
		:: cell[whose] = true
		:: lies < LIES -> lies++				/* refused, or answered well and made nothing */
		fi;
		flying = none; assert(SAFE) }
	:: atomic { flying == destroy ->
		if
		:: cell[whose] = false
		:: lies < LIES -> lies++
		fi;
		flying = none }
	/* A guest's own end, or its keeper's death. */
	:: atomic { cell[0] && lies < LIES -> lies++; cell[0] = false }
	:: atomic { cell[1] && lies < LIES -> lies++; cell[1] = false }
	od
}

proctype crash()
{
end:	do
	:: atomic { up && crashes < CRASHES -> crashes++; up = false; step[0] = idle; step[1] = idle }
	:: atomic { !up ->
		/* reconcile: what the database says, against what is there (ARCHITECTURE.md, "After a start") */
		byte i = 0;
		do
		:: i < 2 ->
			if
#ifdef FORGETS
			:: state[i] == creating && cell[i] -> step[i] = done_step
#else
			:: state[i] == creating && cell[i] && intent[i] == create -> step[i] = done_step
#endif
			:: state[i] == creating && (!cell[i] || intent[i] == destroy) -> step[i] = ask_end
			:: state[i] == created && (intent[i] == destroy || !cell[i]) -> step[i] = ask_end
			:: else
			fi;
			i++
		:: else -> break
		od;
		up = true }
	od
}

init {
	atomic { run phid(); run hypervisor(); run crash(); run client(0); run client(1) }
}

/* Never a CPU with two owners, at any instant. */
ltl safe { [] SAFE }
/* Every intent is settled and every client answered, in the end. */
ltl settled { <>[] (intent[0] == none && intent[1] == none && !wants[0] && !wants[1] && !ends[0] && !ends[1]) }
