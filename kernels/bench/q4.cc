#include <cstdio>
#include <cstdlib>
#include <vector>
#include <ctime>
#include <type_traits>
#include "../src/winograd.h"
using namespace clue; using namespace clue::HWY_NAMESPACE;
static double now(){ timespec t; clock_gettime(CLOCK_PROCESS_CPUTIME_ID,&t); return t.tv_sec+t.tv_nsec*1e-9;}
int main(){
  for(int C: {16,32,64}){
  int T=64; int hw= C==16?32:C==32?16:8;
  Tiles t{hw,hw,64};
  T=t.most();
  ptrdiff_t vp=part_stride(T,C);
  std::vector<float> v(16*vp+64,1.f),m(16*vp+64,1.f),w(16*C*C+64,1.f),src(34*34*64*4,1.f),y(34*34*64*4,1.f),sums(16*C*C+64);
  int R=20000; double b[4];
  for(int rep=0;rep<2;++rep){
  double t0=now(); for(int i=0;i<R/10;++i) multiply(v.data(),vp,T,C,w.data(),C,m.data(),vp);
  double t1=now(); for(int i=0;i<R/10;++i) for(int r=0;r<t.strip_rows();++r) transform_input(src.data(),(hw+2)*C,C,t.columns(),v.data()+r*t.columns()*C,vp);
  double t2=now(); for(int i=0;i<R/10;++i) for(int r=0;r<t.strip_rows();++r) transform_output(m.data()+r*t.columns()*C,vp,C,C,t.columns(),y.data(),hw*C,2,hw);
  double t3=now(); for(int i=0;i<R/10;++i) for(int e=0;e<16;++e) for(int begin=0;begin<C;begin+=kBlock) for(int p=0;p<(C+5)/6;++p){int from=C*p/((C+5)/6), rows=C*(p+1)/((C+5)/6)-from; outer_for(rows,2)(v.data()+e*vp+from,0,C,m.data()+e*vp+begin,0,C,1,T,sums.data()+(e*C+from)*C+begin,C);}
  double t4=now(); b[0]=t1-t0;b[1]=t2-t1;b[2]=t3-t2;b[3]=t4-t3;}
  double n=R/10.0*T; printf("C%d per tile: multiply %.0f ns (%.1f GF) in %.0f out %.0f outer %.0f (%.1f GF)\n",C,b[0]/n*1e9,2.0*16*C*C*n/b[0]/1e9,b[1]/n*1e9,b[2]/n*1e9,b[3]/n*1e9,2.0*16*C*C*n/b[3]/1e9);
  }
}
