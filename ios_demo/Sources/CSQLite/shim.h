// The system's SQLite, on Linux and on Apple platforms.
#include <sqlite3.h>
