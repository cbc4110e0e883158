package org.pytorch.executorch;

/** Interface stub of the class of that name in executorch-android, after its documentation: to compile against, never shipped. */
public class Module {
  public static final int LOAD_MODE_MMAP = 1;

  private Module() {}

  public static Module load(String modelPath, int loadMode, int numThreads) {
    throw new UnsupportedOperationException("stub");
  }

  public EValue[] execute(String methodName, EValue... inputs) {
    throw new UnsupportedOperationException("stub");
  }

  public String[] getMethods() {
    throw new UnsupportedOperationException("stub");
  }

  public void destroy() {
    throw new UnsupportedOperationException("stub");
  }
}
