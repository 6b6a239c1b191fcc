#include "draft/controller.h"

#include <string.h>

#define SLOPE 0.05       /* what each further row adds to a pass that was never timed */
#define NEWEST 0.1       /* weight of the newest time */
#define TOGETHER 0.05    /* the same for the times of all other numbers of rows */
#define OUTLIER 4        /* times longer than usual: the system did something else */
#define KEPT 0.99f       /* of what was learnt, at each new guess */
#define PRIOR 2.0f       /* guesses that a degree is thought to have had */
#define WORTH 1.02       /* times the plain rate that a draft must bring */
#define TRIAL 16         /* steps before a source can be sent to sleep */
#define LONGEST_NAP 1024 /* steps */

void pal__controller_init(pal__controller *c)
{
	memset(c, 0, sizeof *c);
	for (size_t i = 0; i < PAL__DRAFT_SOURCES; i++) {
		c->sources[i].nap = TRIAL;
		for (int b = 0; b < PAL__DRAFT_BUCKETS; b++) {
			c->degrees[i][b].of = PRIOR;
			c->degrees[i][b].right = PRIOR * ((float)b + 0.5f) / PAL__DRAFT_BUCKETS;
		}
	}
}

void pal__controller_passed(pal__controller *c, int rows, double seconds)
{
	double thought = pal__controller_pass(c, rows), change;
	if (!(seconds > 0))
		return;
	if (thought > 0 && seconds > OUTLIER * thought)
		seconds = OUTLIER * thought;
	if (!(c->pass_s[rows] > 0)) {
		c->pass_s[rows] = seconds;
		return;
	}
	/* A longer log and a busier machine make all passes slower: those that are seldom made
	 * must not seem fast because of that. */
	change = seconds / thought - 1;
	for (int i = 0; i <= PAL__DRAFT_MOST + 1; i++)
		c->pass_s[i] *= 1 + (i == rows ? NEWEST : TOGETHER) * change;
}

double pal__controller_pass(const pal__controller *c, int rows)
{
	int below = rows, above = rows;
	while (below > 0 && !(c->pass_s[below] > 0))
		below--;
	while (above <= PAL__DRAFT_MOST && !(c->pass_s[above] > 0))
		above++;
	double low = c->pass_s[below], high = above > PAL__DRAFT_MOST + 1 ? 0 : c->pass_s[above];
	if (below == rows || !(low > 0))
		return below == rows ? low : high;
	if (high > low)
		return low + (high - low) * (rows - below) / (above - below);
	return low * (1 + SLOPE * (rows - below));
}

void pal__controller_guessed(pal__controller *c, size_t source, uint8_t degree, bool right)
{
	float *n_right = &c->degrees[source][degree].right, *of = &c->degrees[source][degree].of;
	*n_right = *n_right * KEPT + (right ? 1 : 0);
	*of = *of * KEPT + 1;
}

double pal__controller_plain(const pal__controller *c)
{
	double one = pal__controller_pass(c, 1);
	return one > 0 ? WORTH / one : 0;
}

int pal__controller_length(const pal__controller *c, size_t source, const uint8_t *sure, int n,
			   double *rate)
{
	double tokens = 1, chance = 1;
	int best = 0;
	*rate = 0;
	for (int i = 0; i < n; i++) {
		uint8_t degree = sure[i] < PAL__DRAFT_BUCKETS ? sure[i] : 0;
		double pass = pal__controller_pass(c, i + 2);
		chance *=
			(double)(c->degrees[source][degree].right / c->degrees[source][degree].of);
		tokens += chance;
		double now = pass > 0 ? tokens / pass : tokens;
		if (now > *rate) {
			*rate = now;
			best = i + 1;
		}
	}
	return best;
}

bool pal__controller_awake(pal__controller *c, size_t source)
{
	if (!c->sources[source].sleeps)
		return true;
	c->sources[source].sleeps--;
	return false;
}

void pal__controller_stepped(pal__controller *c, size_t source, double seconds, int rows, int kept)
{
	double gain = -seconds;
	if (rows)
		gain += kept * pal__controller_pass(c, 1) - pal__controller_pass(c, rows);
	c->sources[source].gain_s += NEWEST * (gain - c->sources[source].gain_s);
	if (gain > 0)
		c->sources[source].nap = TRIAL;
	if (++c->sources[source].steps < TRIAL || c->sources[source].gain_s >= 0)
		return;
	c->sources[source].sleeps = c->sources[source].nap;
	c->sources[source].nap *= c->sources[source].nap < LONGEST_NAP ? 2 : 1;
	c->sources[source].steps = 0;
	c->sources[source].gain_s = 0;
}
