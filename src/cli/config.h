/* Files of options: lines "name = value" with the long names of the command line, without dashes;
 * blanks around both, empty lines and lines that begin with '#' do not count. A flag's value is
 * true or false.
 */
#ifndef PAL_CLI_CONFIG_H
#define PAL_CLI_CONFIG_H

#include "cli/options.h"

#define PAL__CONFIG_BYTES 65536 /* at most */

/* Sets options as the file says; what is read stays for as long as the process. Errors: PAL_EIO,
 * PAL_ELIMIT, PAL_EINVAL, with file and line. */
pal_status pal__config_read(const char *path, const pal__option *options, pal_error *err);

#endif
