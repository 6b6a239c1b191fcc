#include "base/mem.h"
#include "text/tools.h"
#define NO return pal__fail(err, PAL_EUNSUPPORTED, "tools are not there yet")
pal_status pal__tools_system(const char *f, const char *s, const json_t *t, char **o, pal_error *err) { (void)f,(void)s,(void)t,(void)o; NO; }
pal_status pal__tools_calls(const char *f, const char *c, const json_t *j, char **o, pal_error *err) { (void)f,(void)c,(void)j,(void)o; NO; }
pal_status pal__tools_results(const char *f, const char *const *r, size_t n, const char **role, char **o, pal_error *err) { (void)f,(void)r,(void)n,(void)role,(void)o; NO; }
pal_status pal__calls_new(const char *f, pal__calls **o, pal_error *err) { (void)f,(void)o; NO; }
void pal__calls_free(pal__calls *c) { (void)c; }
pal_status pal__calls_feed(pal__calls *c, const char *t, size_t n, const char **x, size_t *nx, size_t *nc, pal_error *err) { (void)c,(void)t,(void)n,(void)x,(void)nx,(void)nc; NO; }
const char *pal__calls_name(const pal__calls *c, size_t i) { (void)c,(void)i; return ""; }
const char *pal__calls_arguments(const pal__calls *c, size_t i) { (void)c,(void)i; return ""; }
pal_status pal__tools_constraint(const pal_model *m, const char *f, const json_t *t, pal__tools_choice c, const char *o, bool p, pal_constraint **out, pal_error *err) { (void)m,(void)f,(void)t,(void)c,(void)o,(void)p,(void)out; NO; }
